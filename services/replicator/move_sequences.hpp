#pragma once
// move_sequences: the sequences of a server that gets rows go on behind what any of the servers has
// given out that the rows come from. Thread rule: the connections'.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/replicator/move_scene.hpp"

namespace pgsled::replicator {

// By schema and name, the last value that was given out, or the one before the first.
using sequence_values = std::map<std::pair<std::string, std::string>, std::int64_t>;

// Keeps the higher value of each.
trouble read_sequences(management::connection&, sequence_values& highest);

struct sequence_manner {
  shard_number shard = 0;    // whose residue it gets where sequences step by 1024
  bool in_use = false;       // clients take values all the time: it is locked for a moment
  // Sequences of tables that step by 1 step by 1024 from now on, each shard by values of its own.
  bool spread = false;
};
trouble carry_sequences(management::connection&, const sequence_values& highest,
                        const sequence_manner&);

}  // namespace pgsled::replicator
