#pragma once
// move_progress: what is told of a move while it runs and after.

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::replicator {

// Milliseconds since 1970, as the times below are.
inline std::int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch()).count();
}

struct move_slot {                       // of one source, while its stream is followed
  std::string host, database, name, position;   // position: an LSN, of what was applied last
  std::uint16_t port = 5432;
  std::int64_t lag = 0;                  // bytes of log that are not applied
  std::int64_t changed = 0;              // ms since 1970: when the position changed last
  bool copies = false;                   // rows are still copied under its snapshot
};

struct coming_rows {                     // of one table, by estimates
  std::string table;
  std::int64_t rows = 0, bytes = 0;      // bytes on disk, with indexes
};

struct move_progress {
  // outcome: running, done, failed, aborted, checked, lost; waiting: for a replicator to take it
  std::string job, database, step, outcome;
  std::string goal;                      // "remove-shard 2"; empty: not known yet
  std::string sqlstate, error, detail;
  std::vector<std::string> missing, warnings;   // of the pre-flight
  std::uint32_t destination = 0, buckets = 0, moving = 0, fences = 0;
  std::uint32_t round = 1;               // which move of the goal
  std::int64_t rows = 0, bytes = 0;      // copied
  std::int64_t changes = 0, lag = 0;     // applied since; bytes of log not applied
  std::int64_t waited = 0;               // rows that had no place at first
  std::int64_t rows_expected = 0;        // to be copied in this move, by the servers' estimates
  std::vector<coming_rows> coming;       // of the pre-flight: to the destination
  std::int64_t log_limit = 0;            // bytes of log that a source keeps for the move at most
  std::int64_t rows_per_s = 0, left_ms = 0;   // of the copy; 0: not known
  std::int64_t began = 0;                // milliseconds since 1970; when this process took it
  bool automatic = false;                // begun by itself ([resharding] automatic)
  bool only_tried = false;               // a look whether the move's runner is gone: it is not
  bool needless = false;                 // there was nothing to move
  std::int64_t next_try_ms = -1;         // of an automatic one that failed; -1: there is none
  std::int64_t ended = 0;                // milliseconds since 1970; 0: it is not over
  std::vector<move_slot> slots;
  std::int64_t fence_ms = 0;             // from the fence to the new map everywhere

  // Slots that have not gone on keep the time when they last did.
  void now_at(std::vector<move_slot> now) {
    for (move_slot& one : now) {
      for (const move_slot& before : slots) {
        if (before.name == one.name && before.position == one.position) {
          one.changed = before.changed;
        }
      }
    }
    slots = std::move(now);
  }
  void because(const pg_error& why) {
    sqlstate = why.sqlstate;
    error = why.hint.empty() ? why.message : why.message + ". " + why.hint;
  }
};

std::string to_json(const move_progress&);   // docs/formats/control.md

}  // namespace pgsled::replicator
