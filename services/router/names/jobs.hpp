#pragma once
// What the router does on servers for the names of clusters (docs/formats/served_as.md). Blocking
// (bounded); called on a helper thread.

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/management/connection.hpp"
#include "services/router/move_desk.hpp"
#include "services/router/names/cluster_names.hpp"

namespace pgsled::router {

struct names_job {
  struct cluster {
    std::string name;                          // of the file
    std::string server;                        // names its first shard: what is read is kept so
    std::vector<management::address> shards;   // empty: no host or no user is known
  };
  std::vector<cluster> clusters;
  management::tls tls;
  std::vector<std::string> keep_fences;   // any other that is found on a server is lifted first
};
// Lifting a fence waits for a hand-over that is in flight, so that what is read holds.
// `each` is called with the server, as in the job, as soon as it is read, by any thread.
void read_names(const names_job&, const std::atomic<bool>& stop,
                const std::function<void(const std::string& server, const names_reading&)>& each);

// A pair of clusters under the names that they have now, and how each is reached.
struct pair_job {
  cluster_pair pair;
  std::vector<management::address> database, other;
  bool database_sharded = false, other_sharded = false;
  management::tls tls;
};
// Every server says what it is, and keeps its map under that name. Why not, if one does not.
result<bool> complete_names(const pair_job&, const std::atomic<bool>& stop);
// A server says what it is, before anything of it is read.
struct settled_name {
  std::optional<pg_error> other;   // it is another database, or another shard
  std::string job;                 // that moves all of it; empty: none
};
result<settled_name> settle_name(management::connection&, const std::string& database,
                                 std::uint32_t shard, const cluster_pair& pair);
// begin, set_fence and end of a move between the two. begin: everywhere or nowhere.
result<bool> do_cluster_work(const pair_job&, const move_work&, const std::atomic<bool>& stop);

}  // namespace pgsled::router
