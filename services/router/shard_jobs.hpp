#pragma once
// What the router does on shards by libpq: read and store the shard map, and read the catalog
// that the planner needs. Blocking (bounded); called on the shard worker's thread.

#include <atomic>
#include <string>
#include <vector>

#include "common/plan/planner.hpp"
#include "services/router/management.hpp"
#include "services/router/shard_map.hpp"

namespace pgsled::router {

struct map_job {
  std::string database;
  std::vector<shard_address> shards;
  management_tls tls;
  bool decisions = false;   // commits over several shards leave decisions there
};
// Reads all shards, decides, and writes where a map is missing or older. A write that fails makes
// the outcome unknown, with the reason: nothing may be served by a map that is nowhere stored.
map_decision settle_map(const map_job&, const std::atomic<bool>& stop);

struct catalog_job {
  std::string database;
  shard_address shard;          // shard 0: the catalogs are the same on all
  std::vector<plan::sharded_table> tables;
  management_tls tls;
};
result<plan::catalog> read_catalog(const catalog_job&, const std::atomic<bool>& stop);

}  // namespace pgsled::router
