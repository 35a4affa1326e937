#pragma once
// indexes: what the destination's tables do without while rows are copied, because it is many
// times cheaper afterwards: indexes, those of keys too, and foreign keys. What was dropped is to be
// found in pgsled.job_later of the destination until it has been made again, in the transaction
// that does so: whoever takes the move over finds it there. Thread rule: the runner's thread.

#include <functional>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// All or nothing, and only on a shard that owns no buckets yet. Indexes stay that could not be made
// again as they are, or on which more depends than foreign keys; so do foreign keys of or to
// partitioned tables.
trouble set_indexes_aside(move_scene&);

// Makes indexes, several tables at once, and foreign keys, which hold from then on for new rows;
// then takes statistics. `watch` as for copy_rows().
trouble put_indexes_back(const move_scene&, const std::function<trouble()>& watch);

// Whether the rows fulfil the foreign keys, too. 23503 when a row that is referred to is missing:
// it may come with the stream of another shard. On a connection of its own.
trouble validate_references(const move_scene&);

// All at once, on tables that are empty again.
trouble restore_indexes(const move_scene&, management::connection&);

// XX000 when something is left to be made: only a bug.
trouble nothing_set_aside(move_scene&);

}  // namespace pgsled::replicator
