#pragma once
// plan_desk: answers plan requests from the database views, and decides when a view is too old to
// answer from. Pure: it calls the planner; loading catalogs and sending are the driver's, through
// the callbacks. Times in milliseconds. Thread rule: one thread.
//
// A catalog is good enough for a request unless DDL went out in the five seconds before it: then
// it must have been read after the request came. A refusal is final only from a catalog that is
// at most a second old. Requests that wait are bounded in number and time.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/bus/envelope.hpp"
#include "common/plan/planner.hpp"

namespace pgsled::router {

class plan_desk {
 public:
  static constexpr std::size_t max_waiting = 1024;        // of all databases together
  static constexpr std::size_t max_waiting_bytes = 32u << 20;
  static constexpr std::int64_t longest_wait = 5000;
  static constexpr std::int64_t ddl_window = 5000;
  static constexpr std::int64_t refresh_every = 60'000;

  struct callbacks {
    std::function<void(const std::string& to, std::uint64_t request, const plan::answer&)> answer;
    std::function<void(const std::string& to, std::uint64_t request, const pg_error&)> error;
    std::function<void(const std::string& database)> load;    // read its catalog, then loaded()
    // Of the snapshot the asker was sent; 0: none by this router, what it says itself counts.
    std::function<std::uint64_t(const std::string& of)> epoch;
    // Which servers have this name is known. Until then nothing is answered: a router that has just
    // begun may take a database for one with a single place, which frontends know to have shards.
    std::function<bool(const std::string& database)> named;
  };
  explicit plan_desk(callbacks calls) : calls_(std::move(calls)) {}

  struct definition {
    std::string name;
    std::uint32_t shards = 1;
    std::vector<plan::sharded_table> tables;
    std::map<std::string, std::string> roles;   // of users who are others on the servers
  };
  void configure(const std::vector<definition>&, std::int64_t now);
  void forget(const std::string& database);   // before configure(): its servers are others now
  void refuse(const std::string& database, const std::string& reason);  // empty: serve again
  // While the shard map is not known, statements with a key wait for it; of a database with one
  // shard in the file everything does, because the map may say that there are more.
  void map_known(const std::string& database, bool known, const std::string& why_not,
                 std::int64_t now);

  // While a job moves rows of the database its tables stay as they are; empty: no job does.
  void moving(const std::string& database, const std::string& job);

  void request(const std::string& from, const bus::envelope&, std::int64_t now);
  // A load that was begun at `began` has ended. True when the catalog is another one than before.
  bool loaded(const std::string& database, result<plan::catalog>, std::int64_t began,
              std::int64_t now);
  void catalog_changed(const std::string& database, std::int64_t now);  // somebody knows of DDL
  void committed(const std::string& database, std::int64_t now);        // and it is done
  void tick(std::int64_t now);

  // Names the tables and the catalog that plans are made from; the same in every router that
  // sees the same ones, so that a restart voids no plan; but another one after each committed(),
  // whatever that has changed. 0: not loaded.
  std::uint64_t version(const std::string& database) const;
  std::size_t waiting() const { return waiting_.size(); }

  struct counts {
    std::uint64_t requests = 0, answered = 0, refused = 0, failed = 0, loads = 0;
  };
  const counts& counted() const { return counts_; }

 private:
  struct view {
    definition defined;
    plan::database_view database;
    std::string refused, problem;         // problem: why the last load failed
    std::string job;                      // that moves its rows
    bool map_known = true;
    std::string map_problem;
    std::int64_t read_at = -1, ddl_at = -1;
    std::uint64_t commits = 0;            // of DDL that it has heard of
    std::vector<std::int64_t> refresh_at;
    bool loading = false, load_again = false;
    bool of_other_tables = false;         // the catalog was read for those of an earlier file
  };
  struct waiter {
    std::string from;
    std::uint64_t request = 0, epoch = 0;
    std::int64_t came = 0, until = 0;
    plan::request asked;
    std::size_t bytes = 0;
    bool for_name = false;                // waits until the database is named
  };
  enum class outcome { done, wait };
  outcome take(const waiter&, std::int64_t now, bool last_try);
  void answer_alone(const waiter&);
  outcome attempt(view&, const waiter&, std::int64_t now, bool last_try);
  bool refused_for_job(const waiter&, const std::string& job, const plan::plan&);
  static bool needs_catalog(const view&, const plan::request&, const plan::plan&);
  outcome wait_for_map(const view&, const waiter&, bool last_try);
  void give(view&, const waiter&, const plan::answer&, std::int64_t now);
  void fail(const waiter&, std::string sqlstate, std::string message, std::string hint = {});
  void load(view&, std::int64_t now);
  void look_again(const std::string& database, std::int64_t now, bool last_try);

  callbacks calls_;
  std::map<std::string, view> views_;
  std::map<std::string, std::string> jobs_;   // by database, also of such that are not sharded
  std::vector<waiter> waiting_;
  std::size_t waiting_bytes_ = 0;
  counts counts_;
};

}  // namespace pgsled::router
