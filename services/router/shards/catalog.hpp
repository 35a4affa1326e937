#pragma once
// What the planner needs of the shards' catalogs, read by libpq. Blocking (bounded); called on the
// catalog worker's thread.

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "common/management/connection.hpp"
#include "common/plan/planner.hpp"

namespace pgsled::router {

struct catalog_job {
  std::string database;
  std::vector<management::address> shards;
  // Those that have rows; they are compared with shard 0. One that cannot be reached is left out:
  // nothing can be placed there.
  std::vector<std::uint32_t> holding;
  std::vector<plan::sharded_table> tables;
  management::tls tls;
};
result<plan::catalog> read_catalog(const catalog_job&, const std::atomic<bool>& stop);

}  // namespace pgsled::router
