#pragma once
// check: what has to be right before a database moves to other servers, all said at once;
// and which tables take part, in both directions. Reads only. Thread rule: the runner's thread.

#include "services/replicator/cluster/scene.hpp"
#include "services/replicator/move/check.hpp"

namespace pgsled::replicator {

// Fills in the tables of all scenes. `resumed`: the rows are on both sides, so only the tables are
// looked at. Errors are those of the connections.
result<move_report> check_cluster(cluster_scene&, bool resumed);
// 55000 when tables of any shard are not those that were found before.
trouble same_cluster_tables(cluster_scene&);

// Whether each value of a column of one type is the same in another, written as text; types as
// format_type() gives them.
bool widens(std::string_view from, std::string_view to);

}  // namespace pgsled::replicator
