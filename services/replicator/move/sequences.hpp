#pragma once
// sequences: the sequences of a server that gets rows go on behind what any of the servers has
// given out that the rows come from. Thread rule: the connections'.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

struct sequence_value {
  std::int64_t highest = 0;   // the last value that was given out, or the one before the first
  std::int64_t base = 1;      // the first value of shard 0, if each shard has values of its own
};
// By schema and name.
using sequence_values = std::map<std::pair<std::string, std::string>, sequence_value>;

// Of several shards, each of its number, all at once: the highest value of each.
using sequence_source = std::pair<shard_number, management::connection*>;
result<sequence_values> read_sequences(const std::vector<sequence_source>&);

struct sequence_manner {
  shard_number shard = 0;    // whose values it gets where sequences step by a multiple of 1024
  bool in_use = false;       // clients take values all the time: it is locked for a moment
  // Sequences step by 1024 times what they did from now on, each shard by values of its own; but
  // for those that come round again.
  bool spread = false;
};
trouble carry_sequences(management::connection&, const sequence_values& values,
                        const sequence_manner&);

}  // namespace pgsled::replicator
