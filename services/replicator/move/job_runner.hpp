#pragma once
// job_runner: what a replicator does on a thread of its own: a move of buckets, or of a whole
// database. Thread rule: run() on that thread, which also calls `tell` and `ask`; the rest any.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "common/base/result.hpp"
#include "common/snapshot/move.hpp"
#include "services/replicator/move/progress.hpp"

namespace pgsled::replicator {

// Kinds of jobs between two databases: all of it, and its definitions alone.
constexpr std::string_view new_cluster = "new-cluster", schema_sync = "schema-sync";

class job_runner {
 public:
  using asker = std::function<result<std::string>(const snapshot::move_request&,
                                                  std::chrono::milliseconds)>;
  using teller = std::function<void(const move_progress&)>;

  job_runner() = default;
  virtual ~job_runner() = default;
  job_runner(const job_runner&) = delete;
  job_runner& operator=(const job_runner&) = delete;

  // Blocks until the job is over or stop() was called; a job that is stopped stays as it is, for
  // whoever takes it later.
  virtual void run() = 0;
  virtual void abort() = 0;
  virtual void stop() = 0;             // run() returns soon
  // Of a move to another cluster; 55000 when it is not the time for it, 0A000 for other jobs.
  enum class wish { cut_over, roll_back, finish };
  virtual result<bool> act(wish) {
    return failure("0A000", "the job is no move to another cluster");
  }

 protected:
  // Ends early when the runner is stopped.
  void wait(std::int64_t ms) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
    while (!stopped_ && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  std::atomic<bool> stopped_{false};
};

}  // namespace pgsled::replicator
