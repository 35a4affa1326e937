#pragma once
// Plans of single statements of every kind; those that read or write rows go to analysis.
// Internal to the planner. Pure.

#include "common/plan/names.hpp"
#include "common/plan/planner.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

plan plan_statement(const node& statement, const database_view& database, const request& from,
                    const names& tables);

}  // namespace pgsled::plan
