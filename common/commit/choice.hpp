#pragma once
// choice: who does what when a transaction over several shards commits. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::commit {

struct participant {
  std::uint32_t shard = 0;
  // Has changed something. One that has only read may say false; in doubt it is true.
  bool writes = true;
  // Why PREPARE TRANSACTION would be refused there ("it has used temporary objects"); empty when
  // it would not. Such a participant counts as one that writes.
  std::string unpreparable;
};

struct choice {
  std::vector<std::uint32_t> readers;        // committed plainly, before anything is decided
  std::vector<std::uint32_t> prepared;       // empty: one phase
  std::optional<std::uint32_t> coordinator;  // whose COMMIT is the decision; none: nobody writes
};

// The coordinator is the one that cannot be prepared, else the first that writes. 0A000 with both
// causes when two cannot be prepared.
result<choice> choose(const std::vector<participant>&);

}  // namespace pgsled::commit
