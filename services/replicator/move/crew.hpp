#pragma once
// move_crew: a few threads that work on the same thing until nothing is left, or the first of them
// fails, while the runner's thread looks on. Thread rule: work() blocks its caller.

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

class move_crew {
 public:
  static constexpr std::uint32_t most = 32;    // threads

  // Runs `one` on `count` threads (number from 0), each until it returns, and `watch` on this one
  // about every 100 ms and once after. The first error of any is returned when all have ended.
  trouble work(std::uint32_t count, const std::function<trouble(std::uint32_t)>& one,
               const std::function<trouble()>& watch);

  // Asked by the threads now and then: somebody has failed, so that the rest is in vain.
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  // Sleeps in small steps, less when somebody has failed.
  void pause(std::int64_t microseconds) const;

 private:
  void fail(pg_error);

  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  trouble first_;
};

}  // namespace pgsled::replicator
