#pragma once
// move_collisions: rows of different shards that will lie on one, and are equal in a unique index
// that is without the sharding key. Reads only; what it keeps of each shard is bounded, but the
// servers sort what they read. Values that are equal to the index and differ as text (1.0 and
// 1.00) are not found here, but when the index is made. Thread rule: the runner's thread.

#include <string>
#include <vector>

#include "services/replicator/move_scene.hpp"

namespace pgsled::replicator {

// One sentence for each index with such rows, naming two. `scene` with its tables and buckets.
result<std::vector<std::string>> find_collisions(const move_scene& scene);

}  // namespace pgsled::replicator
