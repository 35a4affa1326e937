#pragma once
// alike: whether servers place rows as pgsled does, and rows that refer to each other on one shard.
// Of every kind of move. Thread rule: the connection's.

#include <functional>
#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"
#include "services/replicator/move/tables.hpp"

namespace pgsled::replicator {

// A wrong bucket would be a wrong shard: whether the server, asked for some of each type of key,
// computes those that pgsled does. By sha1 with a `digest`.
result<bool> hashes_alike(management::connection&, const std::string& digest = {});
// Foreign keys of one server whose rows would not live together, in words.
result<std::vector<std::string>> references_apart(
    management::connection&, const found_tables&,
    const std::function<bool(const found_table&)>& skipped);

}  // namespace pgsled::replicator
