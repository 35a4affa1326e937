#pragma once
// check: what has to be right before a move changes anything, all said at once; and which
// tables take part. Reads only. Thread rule: the runner's thread.

#include <map>
#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"
#include "services/replicator/move/tables.hpp"

namespace pgsled::replicator {

struct move_report {
  std::vector<std::string> missing;    // the move would fail, or could lose something
  std::vector<std::string> warnings;
  bool no_schema = false;              // the destination has no tables at all: they can be copied
};

// 55000 with all that is missing, if anything is.
trouble verdict(const move_report&);

// What lists and ranges of the file place on the shard that is to be emptied, in words.
std::vector<std::string> mapped_there(const move_scene&);

// Whether the router's functions are on a shard, t or f.
const char* schema_is_there();

// Fills in scene.tables. Errors are those of the connections.
result<move_report> check_move(move_scene&);
// Only scene.tables, for a move whose rows are on both sides already.
trouble find_tables(move_scene&);
// The tables of all shards as they are now, and those that take part in scene.tables; `missing`
// says where the shards do not agree.
result<std::map<shard_number, found_tables>> tables_again(move_scene&,
                                                          std::vector<std::string>& missing);

}  // namespace pgsled::replicator
