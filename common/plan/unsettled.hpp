#pragma once
// unsettled: DDL that the catalog the planner has cannot know of, because its transaction is still
// open: which names may mean something else from then on, and whether a statement has one of them.
// Internal to the planner. Pure.

#include <string>
#include <vector>

#include "common/plan/planner.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

// Names without schema; "*": any. Empty for what only adds, or is the same for the planner.
std::vector<std::string> unsettled_by(const node& ddl, const database_view&);
// The first of `names` that the statement has as a table or a function; empty: none.
std::string unsettled_in(const node& statement, const std::vector<std::string>& names);

}  // namespace pgsled::plan
