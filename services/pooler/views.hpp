#pragma once
// What the pooler answers to gather: docs/formats/gather.md.

#include <string>

#include "services/pooler/pools/lender.hpp"

namespace pgsled::pooler {

// JSON; no rows for a `what` that is not known here. The lender's thread only.
std::string view(const lender&, const std::string& what);

}  // namespace pgsled::pooler
