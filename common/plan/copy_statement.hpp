#pragma once
// COPY: what it says of its input, and where it goes. Internal to the planner. Pure.

#include "common/plan/names.hpp"
#include "common/plan/plan.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

plan plan_copy(const PgQuery__CopyStmt&, const database_view&, const request&, const names&);

}  // namespace pgsled::plan
