#pragma once
// shard_service: keeps shard maps and catalogs known. Hands blocking work to two helper threads
// (maps wait for shards that are down; catalogs must not wait with them), and what they found to
// control and plan_desk. Life cycle: construct, configure() after every configuration, tick();
// destroy before its reactor. Thread rule: the reactor's thread.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/net/reactor.hpp"
#include "services/router/control/control.hpp"
#include "services/router/plan_desk.hpp"
#include "services/router/shards/jobs.hpp"
#include "services/router/shards/worker.hpp"

namespace pgsled::router {

class shard_service {
 public:
  // `changed` is called when a snapshot may differ now.
  shard_service(net::reactor&, control&, plan_desk&, std::function<void()> changed);

  void configure();
  void load_catalog(const std::string& database);
  // For move_desk: its work, and lifting fences and reading the map again.
  struct move_callbacks {
    std::function<void(const move_work&, const result<bool>&)> worked;
    std::function<void(const std::string& database, const map_decision&)> settled;
    std::function<std::string(const std::string& database)> fence;   // that is to stay
    std::function<cluster_pair(const std::string& database)> names;  // of its servers
  };
  void set_moves(move_callbacks calls) { moves_ = std::move(calls); }
  void work(const move_work&);
  void settle(const std::string& database);
  void tick(std::int64_t now);
  // Databases whose map is not known, with the reason; for readiness and the log.
  std::map<std::string, std::string> unsettled() const;
  void publish(const std::string& database);   // which version its plans are of
  void stop();

 private:
  struct map_state {
    bool under_way = false, settled = false, again = false;
    bool placed = false;       // how the file places rows was compared and stored
    std::int64_t retry_at = 0;
    std::string reason;        // why it is not settled
  };
  management::tls tls() const;
  void ask_map(const std::string& database, map_state&);
  void map_known(const std::string& database, map_decision);
  void tell_triggers(const std::string& database, const std::vector<std::string>& triggers);

  net::reactor& loop_;
  control& truth_;
  plan_desk& plans_;
  std::function<void()> changed_;
  std::map<std::string, map_state> maps_;
  std::map<std::string, std::vector<std::string>> told_triggers_;   // by database
  move_callbacks moves_;
  // By database; the map worker's thread alone.
  kept_links take_kept(const std::string& database);
  std::map<std::string, kept_links> kept_;
  shard_worker map_worker_, catalog_worker_;   // last: their jobs use the others
};

std::int64_t steady_ms();   // milliseconds of the steady clock, any thread

}  // namespace pgsled::router
