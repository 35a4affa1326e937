#pragma once
// placement_change: whether another configuration would look for existing rows on another shard than
// they were stored on. The map of buckets is on the shards and no matter of files; lists, ranges and
// what a key is are the file's alone. Pure.

#include <optional>

#include "common/config/config.hpp"

namespace pgsled::router {

// 55000, for the first table found. Tables that one of the two does not name are left out, and so
// are those whose new placement `[resharding] placed_by_hand` lists.
std::optional<pg_error> placement_change(const config::configuration& before,
                                         const config::configuration& now);

}  // namespace pgsled::router
