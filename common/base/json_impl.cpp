// The compiled part of Boost.JSON, once for every binary: Debian 12 has no libboost_json for the
// Boost we use, and two copies in two static libraries would clash.
#include <boost/json/src.hpp>
