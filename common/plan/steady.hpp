#pragma once
// steady: does an expression give the same wherever and whenever it is computed? What each shard
// computes by itself must, where all shards keep the result. Internal to the planner. Pure.

#include <string>

#include "common/plan/planner.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

// What is not known to give the same on every shard, for messages; empty: nothing. A catalog that
// is not loaded knows no function.
std::string unsteady(const node* expression, const catalog& known);
// A default of a column of this type may be a text that says "now".
std::string unsteady(const node* expression, const PgQuery__TypeName* type, const catalog& known);
// A function that may read tables, for messages; empty: none, or the catalog is not loaded.
std::string reads_tables(const node* expression, const catalog& known);

}  // namespace pgsled::plan
