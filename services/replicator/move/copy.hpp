#pragma once
// copy: the first copy of all moving rows, under the snapshots of the sources' slots: several
// parts of tables at once, each on a thread and two connections of its own. Which part comes next
// and how fast is decided by moving::copy_queue and moving::copy_rate. Thread rule: the runner's
// thread, which is kept and calls `watch`.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

struct source_snapshot {
  shard_number source = 0;
  std::string snapshot;                // whoever exported it is still there
};

// SQLSTATE of a copy that is worth nothing because a table was rewritten or truncated meanwhile.
constexpr const char* rewritten = "40001";

// Called about every 100 ms with the rows and bytes copied since the last call; an error ends the
// work.
using copy_watcher = std::function<trouble(std::int64_t rows, std::int64_t bytes)>;

// Each part is a transaction of the destination of its own. Nothing runs any more when it returns.
trouble copy_rows(const move_scene&, const std::vector<source_snapshot>&, const copy_watcher&);

}  // namespace pgsled::replicator
