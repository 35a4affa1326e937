#pragma once
// What the router does on shards by libpq for commits over several of them: makes the schema, looks
// for what coordinators left behind, and finishes it as common/commit/resolver says. Blocking
// (bounded); called on commit_service's own thread.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/commit/deadlock.hpp"
#include "common/commit/resolver.hpp"
#include "common/management/connection.hpp"

namespace pgsled::router {

// Connections kept from one round to the next: while nothing is to be resolved a round is one
// query to each shard.
struct commit_links {
  struct link {
    management::connection connection;
    std::vector<std::string> problems;   // found when it was opened
  };
  std::vector<std::optional<link>> of;   // by shard
  int until_look = 0;                    // rounds until old decisions are looked for
  // Found in a deadlock last time. The shards are asked one after the other, so only who is found
  // twice is believed.
  std::vector<commit::mark> suspects;
};

struct commit_job {
  std::string database;
  std::vector<management::address> shards;
  std::vector<std::string> roles;      // server roles of the database's users
  management::tls tls;
  std::shared_ptr<commit_links> kept;  // of the same shards; used by one job at a time
  bool decides = true;                 // false: shards without places for decisions have none
};

struct open_transaction {              // a row of SHOW TRANSACTIONS
  std::string database, key, state, reason, owner;
  std::vector<std::string> gids;
  std::uint32_t coordinator = 0;
  std::vector<std::uint32_t> participants;
  std::int64_t age = 0;                // ms
};

struct commit_report {
  std::vector<open_transaction> open;  // after this round: what is over is left out
  std::vector<std::string> finished;   // "key: committed on shards 1, 2"
  std::vector<std::string> problems;   // in no order; the same text for the same cause
  std::vector<commit::mark> victims;   // of deadlocks: to be cancelled
};

commit_report resolve_commits(const commit_job&, const std::atomic<bool>& stop);
// Makes schema pgsled ready for decisions, if it is not.
std::optional<pg_error> make_decision_schema(management::connection&);

}  // namespace pgsled::router
