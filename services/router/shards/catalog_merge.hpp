#pragma once
// catalog_merge: the catalogs of several shards as the planner may rely on them. Plans are made
// from that of the first one; what another says otherwise is noted in it, so that nothing is placed
// by a type, a collation or an order of columns that is not everybody's. Pure.

#include <cstdint>

#include "common/plan/planner.hpp"

namespace pgsled::router {

// `other`: of `shard`, which has rows. A table that it does not have is no difference: it says so
// itself.
void merge_catalog(plan::catalog& first, const plan::catalog& other, std::uint32_t shard);

}  // namespace pgsled::router
