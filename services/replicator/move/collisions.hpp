#pragma once
// collisions: rows of different shards that will lie on one, and are equal in a unique index
// that is without the sharding key; and which indexes those are. Reads only; what it keeps of each shard is bounded, but the
// servers sort what they read. Values that are equal to the index and differ as text (1.0 and
// 1.00) are not found here, but when the index is made. Thread rule: the runner's thread.

#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// One sentence for each index with such rows, naming two. `scene` with its tables and buckets. Of a
// move to another cluster the key is that by which the old shards place their rows: whose it is the
// same are on one of them, which sees to it.
result<std::vector<std::string>> find_collisions(const move_scene& scene);

// Names of the unique indexes of a table that are without a column, so that they cannot hold over
// several shards.
result<std::vector<std::string>> unique_without(management::connection&, const moving::table&,
                                                const std::string& column);

}  // namespace pgsled::replicator
