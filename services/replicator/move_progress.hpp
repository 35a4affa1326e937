#pragma once
// move_progress: what is told of a move while it runs and after.

#include <cstdint>
#include <string>
#include <vector>

namespace pgsled::replicator {

struct move_progress {
  std::string job, database, step, outcome;   // outcome: running, done, failed, aborted, checked
  std::string sqlstate, error, detail;
  std::vector<std::string> missing, warnings;   // of the pre-flight
  std::uint32_t destination = 0, buckets = 0, moving = 0, fences = 0;
  std::int64_t rows = 0, bytes = 0;      // copied
  std::int64_t changes = 0, lag = 0;     // applied since; bytes of log not applied
  std::int64_t fence_ms = 0;             // from the fence to the new map everywhere
};

}  // namespace pgsled::replicator
