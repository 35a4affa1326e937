#include "common/commit/choice.hpp"

#include <fmt/format.h>

namespace pgsled::commit {

result<choice> choose(const std::vector<participant>& all) {
  const participant* bound = nullptr;
  choice made;
  for (const participant& one : all) {
    if (one.unpreparable.empty()) continue;
    if (bound != nullptr) {
      return failure("0A000",
                     fmt::format("cannot commit on shards {} and {} at once: neither can be "
                                 "prepared (shard {}: {}; shard {}: {})",
                                 bound->shard, one.shard, bound->shard, bound->unpreparable,
                                 one.shard, one.unpreparable),
                     "Use what PostgreSQL cannot prepare on one shard only.");
    }
    bound = &one;
    made.coordinator = one.shard;
  }
  for (const participant& one : all) {
    if (&one == bound) continue;
    if (!one.writes) {
      made.readers.push_back(one.shard);
    } else if (!made.coordinator) {
      made.coordinator = one.shard;
    } else {
      made.prepared.push_back(one.shard);
    }
  }
  return made;
}

}  // namespace pgsled::commit
