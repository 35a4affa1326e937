#pragma once
// What the router does on shards by libpq: read and store the shard map. Blocking (bounded); called
// on the shard worker's thread.

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "common/management/connection.hpp"
#include "common/snapshot/move.hpp"
#include "services/router/move_desk.hpp"
#include "services/router/names/cluster_names.hpp"
#include "services/router/shards/map.hpp"

namespace pgsled::router {

struct map_job {
  std::string database;
  std::vector<management::address> shards;
  management::tls tls;
  std::string keep_fence;       // any other fence found on a shard is lifted first
  bool decisions = false;   // commits over several shards leave decisions there
  // How the file places rows, to be compared with what is stored and stored; unless `placed`,
  // because that has been done.
  std::vector<snapshot::placed_table> tables = {};
  std::vector<std::string> placed_by_hand = {};
  bool placed = true;
  // Names that these servers have or had, if all of it was ever moved; epoch 0: it never was.
  cluster_pair names = {};
};
// From when a fence was set, for when it falls: new ones are not to be opened while clients wait.
struct kept_links {
  std::vector<management::address> shards;
  std::vector<management::connection> links;   // one a shard
  std::int64_t since = 0;                      // steady_ms(), of who keeps them
};
// Reads all shards, decides, and writes where a map is missing or older. A write that fails makes
// the outcome unknown, with the reason: nothing may be served by a map that is nowhere stored.
// Lifting a fence waits for a change of the map that is in flight, so that what is read holds.
map_decision settle_map(const map_job&, kept_links, const std::atomic<bool>& stop);

// All shards or, as far as they can be reached, none. `keep` gets the links by which a fence was
// set.
result<bool> do_move_work(const map_job&, const move_work&, kept_links& keep,
                          const std::atomic<bool>& stop);

}  // namespace pgsled::router
