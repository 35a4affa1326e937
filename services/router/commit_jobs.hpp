#pragma once
// What the router does on shards by libpq for commits over several of them: makes the schema, looks
// for what coordinators left behind, and finishes it as common/commit/resolver says. Blocking
// (bounded); called on commit_service's own thread.

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "common/commit/resolver.hpp"
#include "services/router/management.hpp"

namespace pgsled::router {

struct commit_job {
  std::string database;
  std::vector<shard_address> shards;
  std::vector<std::string> roles;      // server roles of the database's users
  management_tls tls;
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
};

commit_report resolve_commits(const commit_job&, const std::atomic<bool>& stop);

}  // namespace pgsled::router
