#pragma once
// changes: whether tables are what they were when the move began, and if not, whether it can
// go on with them. Reads only. Thread rule: the runner's thread.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

struct tables_now {
  std::map<shard_number, std::vector<moving::table>> tables;   // as scene.tables
  // Why the move cannot go on with them, ever; then nothing else.
  std::optional<std::string> end;
  std::vector<std::string> differ;     // where the shards do not agree, in words
};
result<tables_now> look_at_tables(move_scene&);
// 55000 when the tables of any shard are not those that were found before.
trouble same_tables(move_scene&);
// In words, what `here` has that `there` of the same name has not, and the other way round.
std::string other_columns(const moving::table& here, const moving::table& there);

}  // namespace pgsled::replicator
