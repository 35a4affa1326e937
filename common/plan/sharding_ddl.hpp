#pragma once
// DDL that would make a sharded table one that is on every shard, or the other way: its rows would
// stay where they are, and be looked for elsewhere. Internal to the planner. Pure.

#include <optional>

#include "common/plan/names.hpp"
#include "common/plan/plan.hpp"
#include "common/plan/planner.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

// Each: a refusal, or nothing to be said against it.
std::optional<plan> check_rename(const PgQuery__RenameStmt&, const database_view&, const names&);
std::optional<plan> check_new_schema(const PgQuery__AlterObjectSchemaStmt&, const database_view&,
                                     const names&);
std::optional<plan> check_sharding(const PgQuery__RangeVar& table, const PgQuery__AlterTableCmd&,
                                   const names&);

}  // namespace pgsled::plan
