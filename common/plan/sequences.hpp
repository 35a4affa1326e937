#pragma once
// Sequences of sharded databases: every shard counts in values of its own. Internal to the planner.
// Pure.

#include <optional>

#include "common/plan/plan.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

// Does the column get a sequence of its own?
bool has_sequence(const PgQuery__ColumnDef&);
// Options of a sequence or an identity column that is made: a refusal, if its values cannot be
// spread over the shards.
std::optional<plan> check_sequence(node_list options);
std::optional<plan> check_sequence(const PgQuery__ColumnDef&);
// Options for one that is there, with values on each shard that are not known here.
std::optional<plan> check_sequence_change(node_list options);

}  // namespace pgsled::plan
