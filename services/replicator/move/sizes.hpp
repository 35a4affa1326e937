#pragma once
// sizes: how much a move will bring to its destination, so that an operator can compare it
// with what is free there, which no server tells. Reads only. Thread rule: the runner's thread.

#include <vector>

#include "services/replicator/move/progress.hpp"
#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// By table, the largest first. Estimates: of what the servers believe their tables to hold, and of
// their size on disk with indexes, the part that moves by the number of buckets.
result<std::vector<coming_rows>> what_comes(move_scene&);

}  // namespace pgsled::replicator
