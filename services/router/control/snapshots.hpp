#pragma once
// snapshots: what each process is told, as a function of topology, members, shares and shard maps.
// Pure: no clock, no socket.

#include <map>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/snapshot/move.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/router/control/budgets.hpp"
#include "services/router/control/membership.hpp"
#include "services/router/control/topology.hpp"

namespace pgsled::router {

struct database_state {
  std::vector<std::uint32_t> bucket_map;   // empty: not known, or refused
  std::string refused;                     // why nothing can be served; empty: no such reason
  std::uint64_t catalog = 0;
  std::uint64_t map_epoch = 0;             // of bucket_map, as stored
  std::string moving = {};                 // the job that moves its rows; empty: none
  std::string fence = {};                  // up, for these buckets; empty: none
  std::vector<std::uint32_t> fenced = {};
  std::string other = {};                  // `moving` moves all of it to these servers, or back
  bool leads = false;                      // of the two it is the one whose name is handed over
  bool whole = false;                      // the fence is for every transaction
  std::uint64_t names_epoch = 0;           // of the servers' record of their name; 0: none
  bool names_unknown = false;              // which servers have this name: transactions wait
  std::string names_refused = {};          // why none have it; empty: no such reason
  bool operator==(const database_state&) const = default;
};
using database_states = std::map<std::string, database_state>;

bool serves(const member& pooler, const std::string& database);
// Live poolers that are not draining, by name, for each pool.
std::vector<pool_size> wanted_shares(const topology&, const membership&);

// Everything but the worker's own number; epoch is left 0.
snapshot::frontend frontend_snapshot(const config::configuration&, const topology&,
                                     const membership&, const shares&, const database_states&);
snapshot::pooler pooler_snapshot(const config::configuration&, const topology&, const membership&,
                                 const member& pooler, const shares&, const database_states&,
                                 const std::vector<std::string>& client_keys);
// For who moves buckets: the shards of a database, and what lies there.
snapshot::move_where where_rows_are(const config::configuration&, const topology&,
                                    const std::string& database, const database_state&);
// The same of two databases, of which the second may take over from the first.
snapshot::cluster_where where_clusters_are(const config::configuration&, const topology&,
                                           const std::string& database, const std::string& to,
                                           const database_states&);
// `configured`: a number for the configuration.
snapshot::replicator replicator_snapshot(const config::configuration&, const topology&,
                                         const membership&, const member& replicator,
                                         std::uint64_t configured, const database_states&,
                                         const std::vector<std::string>& client_keys);

}  // namespace pgsled::router
