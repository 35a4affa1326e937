#pragma once
// placement_change: whether another configuration would look for existing rows on another shard
// than they were stored on. The map of buckets is on the shards and no matter of files; lists,
// ranges and what a key is are the file's alone, so they are stored there too, for comparison.
// Pure.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/snapshot/move.hpp"

namespace pgsled::router {

// How the tables of a database are placed. Those that this version refuses are left out.
std::vector<snapshot::placed_table> placed_tables(const config::configuration&,
                                                  const std::string& database);
// What an entry is stored under.
std::string entry_of(const snapshot::placed_table&);

// 55000, for the first table found. Tables that one of the two does not name are left out, and so
// are those whose new placement is in `by_hand`.
std::optional<pg_error> placement_change(const std::string& database,
                                         const std::vector<snapshot::placed_table>& before,
                                         const std::vector<snapshot::placed_table>& now,
                                         const std::vector<std::string>& by_hand);

}  // namespace pgsled::router
