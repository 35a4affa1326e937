#pragma once
// flip: writes a new map on all shards in one two-phase commit (common/commit). What cannot be
// finished here is finished by the router, as for any commit over several shards. Thread rule: the
// runner's thread.

#include <string>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

enum class flip_outcome { done, refused, unknown };

struct flip_result {
  flip_outcome what = flip_outcome::refused;
  pg_error why{"", "", "", ""};        // of refused and unknown
};

// `epoch` of the map that is replaced. With `last`, the job counts as flipped.
flip_result flip(move_scene&, std::uint64_t epoch, const moving::bucket_map& to,
                 const std::string& fence, bool last);

}  // namespace pgsled::replicator
