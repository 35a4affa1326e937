#pragma once
// commit_service: has what coordinators of commits left behind looked for and finished, and
// deadlocks over several shards found, on a helper
// thread of its own (it waits for shards that are down), and keeps what is open for SHOW
// TRANSACTIONS. Life cycle: construct, configure() after every configuration, tick(), stop().
// Thread rule: the reactor's thread.

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/net/reactor.hpp"
#include "services/router/commit/jobs.hpp"
#include "services/router/control/control.hpp"
#include "services/router/shards/worker.hpp"

namespace pgsled::router {

class commit_service {
 public:
  // `cancel`: the transaction is to be ended as victim of a deadlock.
  commit_service(net::reactor&, control&, std::function<void(const commit::mark&)> cancel);

  void configure();
  void tick(std::int64_t now);
  std::vector<open_transaction> open() const;   // as the last rounds found them
  std::uint64_t resolved() const { return resolved_; }
  void stop() { worker_.stop(); }

 private:
  struct database_rounds {
    bool under_way = false;
    std::int64_t next_at = 0;
    std::shared_ptr<commit_links> links = std::make_shared<commit_links>();
    std::vector<management::address> shards;         // which the links lead to
    std::vector<open_transaction> open;
    std::set<std::string> problems;            // said in the log already
  };
  void ask(const std::string& database, database_rounds&);
  void heard(const std::string& database, const commit_report&);

  net::reactor& loop_;
  control& truth_;
  std::function<void(const commit::mark&)> cancel_;
  std::map<std::string, database_rounds> rounds_;
  std::uint64_t resolved_ = 0;
  shard_worker worker_;                        // last: its jobs use the others
};

}  // namespace pgsled::router
