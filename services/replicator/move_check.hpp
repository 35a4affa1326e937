#pragma once
// move_check: what has to be right before a move changes anything, all said at once; and which
// tables take part. Reads only. Thread rule: the runner's thread.

#include <string>
#include <vector>

#include "services/replicator/move_scene.hpp"

namespace pgsled::replicator {

struct move_report {
  std::vector<std::string> missing;    // the move would fail, or could lose something
  std::vector<std::string> warnings;
  bool no_schema = false;              // the destination has no tables at all: they can be copied
};

// Whether the router's functions are on a shard, t or f.
const char* schema_is_there();

// Fills in scene.tables. Errors are those of the connections.
result<move_report> check_move(move_scene&);
// Only scene.tables, for a move whose rows are on both sides already.
trouble find_tables(move_scene&);
// 55000 when the tables of any shard are not those that were found before.
trouble same_tables(move_scene&);

}  // namespace pgsled::replicator
