#pragma once
// schema: copies the definitions of a database (without schema pgsled, publications and
// subscriptions) to an empty one by pg_dump. Blocking; ends early when the scene's `stop` becomes
// true. Thread rule: the runner's thread.

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// All or nothing, in one transaction. Errors have pg_dump's or the server's own words.
trouble copy_schema(move_scene&, shard_number from, shard_number to);

// What pg_dump wrote without the commands of psql that newer ones put around it.
std::string without_psql_commands(std::string_view script);

}  // namespace pgsled::replicator
