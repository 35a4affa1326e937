#pragma once
// move_runner: carries out one move (common/moving/job.hpp says in which order): the driver of the
// job, with the router asked over the bus and the shards by libpq. Split: take.cpp which move it is;
// fill.cpp, apply.cpp the rows; pause.cpp; undo.cpp the ways back and the cleaning up; runner.cpp the
// rest. Thread rule: job_runner's.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/moving/job.hpp"
#include "services/replicator/move/changes.hpp"
#include "services/replicator/move/check.hpp"
#include "services/replicator/move/compare.hpp"
#include "services/replicator/move/job_runner.hpp"
#include "services/replicator/move/progress.hpp"
#include "services/replicator/move/scene.hpp"
#include "services/replicator/move/sequences.hpp"
#include "services/replicator/move/stream.hpp"

namespace pgsled::replicator {

struct move_order {
  std::string database;
  std::string job;                     // with `resume` it is taken over
  bool resume = false;
  bool dry_run = false;                // only the pre-flight
  // Of one that is not resumed. Without a shard add-shard takes the first one that is joining and
  // was not emptied on purpose.
  moving::goal_kind kind = moving::goal_kind::add_shard;
  std::optional<shard_number> shard = {};
  bool automatic = false;              // nobody has asked for it
};

class move_runner : public job_runner {
 public:
  move_runner(move_order, std::string runner, asker, teller);
  void run() override;
  void abort() override;               // heard until the flip
  void stop() override;

 private:
  static constexpr std::chrono::milliseconds usual_answer{20'000};
  static constexpr const char* nothing_to_move = "02000";

  trouble perform(moving::step);
  void play(moving::step);
  trouble ask_where();
  trouble choose_goal();
  trouble plan();
  trouble take(moving::stored& found);
  trouble lock();
  trouble recall();
  trouble check();
  trouble begin();
  trouble record();
  trouble refine();
  trouble prepare();
  trouble copy();
  trouble expect_rows();
  trouble catch_up();
  trouble compare();
  trouble compare_once(bool all);
  trouble validate();
  trouble watch_slots();
  trouble write_markers();
  trouble rehearse();
  trouble fence();
  trouble verify();
  result<sequence_values> read_source_sequences();
  trouble sequences();
  trouble settle(moving::stored& found);
  static bool may_be_of_tables(moving::step, const pg_error&);
  trouble pause();
  trouble go_on_with(const tables_now&, bool& gone_on);
  trouble let_go(const char* what);
  trouble undo();
  trouble drop_tools(shard_number, moving::stored at);
  trouble drop_rows();
  trouble still_runs() const;               // an error when the process ends
  trouble mark_moving(const char* how);
  trouble settle_flipped();
  trouble destination_has_them();
  trouble clean();
  trouble clean_table(management::connection&, const moving::table&);
  trouble drop();
  trouble pump(std::chrono::milliseconds wait, std::chrono::milliseconds there);
  trouble follow_to_marker(std::chrono::milliseconds patience);
  trouble ask(const char* what, std::string* answer = nullptr,
              const std::vector<std::uint32_t>& buckets = {}, std::int64_t wait_ms = 0);
  trouble ask_fence(const std::vector<std::uint32_t>& buckets);
  trouble on_all(const std::string& sql);
  static std::int64_t since(std::chrono::steady_clock::time_point begin);   // ms
  void tell();
  void note_slots();

  move_order order_;
  asker ask_;
  teller tell_;
  std::atomic<bool> aborted_{false};
  std::atomic<bool> quit_{false};            // ends what waits on a server
  std::atomic<bool> interruptible_{false};   // an abort need not wait for this step's end
  move_scene scene_;
  moving::job job_;
  std::optional<management::connection> lock_;
  std::vector<std::unique_ptr<move_stream>> streams_;
  bool taken_ = false;                 // the job is, or was, this runner's
  bool goal_known_ = false;
  std::uint32_t stored_round_ = 0;     // as the shards have it
  bool copying_ = false;               // rows may be on the destination
  std::optional<pg_error> paused_by_;
  bool compared_ = false;              // all rows once; since then the streams know what changed
  std::string fence_, marker_;
  std::chrono::steady_clock::time_point fenced_at_{};
  std::chrono::steady_clock::time_point slots_seen_{};
  std::uint64_t markers_ = 0;
  std::uint32_t runs_ = 0;
  move_progress progress_;
};

}  // namespace pgsled::replicator
