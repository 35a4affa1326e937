#pragma once
// cluster_runner: carries out the move of a database to the servers of another one
// (common/moving/cluster_job.hpp says in which order): the driver of that machine, with the router
// asked over the bus and the shards by libpq. Thread rule: job_runner's.

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "services/replicator/cluster/flow.hpp"
#include "services/replicator/move/check.hpp"
#include "services/replicator/move/definitions.hpp"
#include "services/replicator/move/job_runner.hpp"

namespace pgsled::replicator {

struct cluster_order {
  std::string database, to;
  std::string job;                     // with `resume` it is taken over
  bool resume = false;
  bool dry_run = false;                // only the pre-flight
  bool only_schema = false;            // only the pre-flight and the definitions
  bool automatic_cutover = false;      // of one that is not resumed: nobody is waited for
};

// As it is shown: "new-cluster" and the other database.
std::string goal_of(const cluster_order&);

class cluster_runner : public job_runner {
 public:
  cluster_runner(cluster_order, std::string runner, asker, teller);
  void run() override;
  void abort() override;               // in reverse it finishes
  void stop() override;
  result<bool> act(wish) override;

 private:
  using step = moving::cluster_step;

  void run_check();
  void play(step);
  void play_take();
  void play_settle();
  void play_reverse();
  void play_flip();
  void fail(step, const pg_error&);
  trouble perform(step);
  trouble ask(const char* what, std::string* answer = nullptr, std::int64_t wait_ms = 0,
              bool lost = false);
  trouble let_go(const char* what);
  // `handed_over`: it is known that the new servers have the name.
  trouble ask_where(bool handed_over = false);
  // The job of a side that has the name, when the other one is not reached.
  bool adopt_without_other(moving::cluster_stored& found);
  trouble take(moving::cluster_stored& found);
  trouble take_both(moving::cluster_stored& found);
  trouble lock();
  trouble adopt_it(moving::cluster_stored& found);
  trouble check();
  trouble copy_schemas(move_report&);
  trouble collisions(move_report&);
  trouble begin();
  trouble record();
  trouble prepare();
  trouble copy();
  trouble expect_rows();
  trouble ready();
  // What the old servers define otherwise than when the job began, in words; empty: nothing. Then it
  // is as it is, if somebody sees to it.
  result<std::string> redefined(bool seen_to);
  void not_yet(const std::string& why, const std::string& hint);
  result<std::vector<definitions>> read_old_definitions();
  result<bool> untouched();
  trouble back();
  trouble make_back_slots();
  trouble fence();
  trouble verify();
  trouble flipped();
  trouble reverse();
  trouble connect_again();
  trouble drop_forward();
  trouble watch_back_slots();
  trouble undo();
  trouble finish();
  trouble drop_tools(cluster_side, std::size_t shard);
  trouble empty_again(std::size_t shard);
  trouble watch();
  trouble watch_slots();
  void forget_streams();
  bool is_transient(step, const pg_error&) const;
  void tell();
  void note_slots();

  cluster_order order_;
  asker ask_;
  teller tell_;
  std::string runner_;
  std::uint64_t takes_ = 0;
  std::atomic<bool> aborted_{false}, quit_{false}, interruptible_{false};
  std::atomic<bool> past_{false};
  std::atomic<bool> cut_over_{false}, roll_back_{false}, finish_{false};
  std::atomic<step> at_{step::take};
  cluster_scene scene_;
  moving::cluster_job job_;
  std::map<std::string, management::connection> locks_;   // by server: the first of each side
  std::unique_ptr<cluster_flow> flow_;
  bool taken_ = false;                 // the job is, or was, this runner's
  bool lost_ = false;                  // and is another one's now
  std::uint32_t runs_ = 0;
  std::string fence_;
  std::chrono::steady_clock::time_point fenced_at_{}, slots_seen_{}, finishing_{};
  std::vector<std::string> stamps_;    // of the same shards
  std::vector<definitions> defined_;   // by shard of the old servers, as far as it is seen to
  move_progress progress_;
};

}  // namespace pgsled::replicator
