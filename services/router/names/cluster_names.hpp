#pragma once
// cluster_names: which servers answer to the name of a database, when all of it may have been
// handed over to others (docs/formats/served_as.md). Pure: what was read from the first shard of
// each database of the file goes in, what is true comes out. A name that might have been handed
// over and cannot be read is unknown, never guessed.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/config/config.hpp"

namespace pgsled::router {

struct served_record {        // the row of pgsled.served_as on a first shard
  std::string name, other;    // what these servers are, and what they would become
  std::string token;          // of the two: the name that is handed over by whoever has it
  std::uint64_t epoch = 0;
  std::uint32_t shard = 0;
  std::string job = {};       // a move between the two that is registered; empty: none
  bool operator==(const served_record&) const = default;
};

struct names_reading {
  bool reached = false;
  std::string problem;        // when not reached: why
  std::optional<served_record> record;
  bool tried = false;         // when not reached: it was asked for, in vain
};

struct file_cluster {         // a database of the file, and what its first shard says
  std::string name;
  bool resharding_only = false;
  names_reading first;
};

struct cluster_pair {
  std::string database, other;   // the name that is handed over, and the other one
  std::uint64_t epoch = 0;       // of the names
  std::string job;               // that is registered; empty: none
  bool swapped = false;          // the file gives each the other's servers
  bool operator==(const cluster_pair&) const = default;
};

struct names_decision {
  std::vector<cluster_pair> pairs;             // those that are known
  // Names as clients know them, with the reason. Unknown: statements wait, and what is missing is
  // read again. Refused: the file contradicts the servers.
  std::map<std::string, std::string> unknown, refused;
  // The name that the servers have which the file gives to `in_file`.
  std::string served(const std::string& in_file) const;
  const cluster_pair* pair_of(const std::string& name) const;
};

// In the order of the file, each name once.
names_decision decide_names(const std::vector<file_cluster>&);

// The file, with everything that belongs to servers under the name that they answer to. What
// belongs to a name stays: users, and that it is for resharding only. The file itself goes in,
// never what came out.
config::configuration with_names(config::configuration, const names_decision&);

}  // namespace pgsled::router
