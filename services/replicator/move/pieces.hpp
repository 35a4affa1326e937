#pragma once
// pieces: deletes rows of a table in transactions that are small, so that clients of it, the log and
// whoever wants the job meanwhile need not wait for all of it. Thread rule: the connection's.

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

// By their place in the table, until a whole pass finds none. `rows`: a condition. Each transaction
// holds the job; `before` each may end it. A table that was dropped meanwhile has no rows.
trouble delete_in_pieces(management::connection&, const move_scene&, const std::string& table,
                         const std::string& rows, const std::function<trouble()>& before);

// All rows that pgsled.job.filled tells of go, without triggers, and are forgotten there: by TRUNCATE
// where it is all of a table, else so.
trouble delete_filled(management::connection&, const move_scene&,
                      const std::function<trouble()>& before);

// An entry of it: a table, and the condition of the rows that are meant.
std::pair<std::string, std::string> filled_table(std::string_view entry);

}  // namespace pgsled::replicator
