#pragma once
// names_service: keeps known which servers answer to which database, and makes the configuration
// that the router serves out of the file. What was read of a server holds until a hand-over may
// have happened there (forget()). Names are looked up where the file has a database for resharding
// only, and of servers that are known to have been part of a move. Life cycle: construct,
// configure() with every file, tick(); destroy before its reactor. Thread rule: the reactor's.

#include <functional>
#include <map>
#include <set>
#include <string>

#include "common/net/reactor.hpp"
#include "services/router/control/control.hpp"
#include "services/router/names/cluster_names.hpp"
#include "services/router/names/jobs.hpp"
#include "services/router/shards/worker.hpp"

namespace pgsled::router {

class names_service {
 public:
  struct callbacks {
    // Another configuration is served from now on. `changed`: names that have the servers of
    // another now, or are known only now; what was known of their rows is void.
    std::function<void(const std::set<std::string>& changed)> serve;
    std::function<void()> changed;                          // a snapshot may differ now
    std::function<void(const cluster_pair&)> registered;    // a move between the two is
    std::function<std::vector<std::string>()> fences;       // those that are to stay
    std::function<void(const move_work&, const result<bool>&)> worked;
  };
  names_service(net::reactor&, control&, callbacks);

  // What the router would serve of this file by what is known now; or why it must not.
  result<config::configuration> named(const config::configuration& file) const;
  void configure(config::configuration file);
  // For move_desk. look_up() reads the names of a pair again, whatever was known; `done` hears
  // whether they are known then.
  void work(const move_work&);
  void look_up(const std::string& database, const std::string& other,
               std::function<void(bool known)> done);
  void tick(std::int64_t now);
  void stop() { worker_.stop(); }

  const names_decision& known() const { return decided_; }
  // Why the names of a database are not known; null when they are.
  const std::string* unknown(const std::string& database) const;

 private:
  std::vector<file_cluster> clusters_of(const config::configuration& file) const;
  bool wanted(const config::configuration& file) const;
  void ask();
  void found_one(const std::string& server, const names_reading&);
  void found_all();
  void forget(const std::string& database, const std::string& other);
  void apply(bool new_file);
  void publish();
  pair_job job_of(const cluster_pair&) const;
  void complete();
  void ended(const std::string& job);

  net::reactor& loop_;
  control& truth_;
  callbacks calls_;
  config::configuration file_;
  names_decision decided_;
  std::map<std::string, names_reading> readings_;   // by server
  std::set<std::string> complete_;                  // pairs whose servers all know, with the epoch
  struct asker {
    std::string database;
    std::function<void(bool)> done;
  };
  std::vector<asker> asking_, asked_;   // those of the next look, of the present one
  bool under_way_ = false, again_ = false, completing_ = false;
  bool looked_ = false, configured_ = false;        // at least once
  std::int64_t retry_at_ = 0;
  std::map<std::string, std::string> told_;         // what was logged
  shard_worker worker_;                             // last: its jobs use the others
};

}  // namespace pgsled::router
