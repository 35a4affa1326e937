#pragma once
// The router's names of the connections it keeps house by.

#include "common/management/connection.hpp"

namespace pgsled::router {

using shard_address = management::address;
using management_connection = management::connection;
using management_tls = management::tls;

}  // namespace pgsled::router
