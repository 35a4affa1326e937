#pragma once
// `pgsled reshard`: asks a replicator by its control socket (docs/formats/control.md) to move
// buckets, and shows how it goes. Blocking; an interrupted command does not end the move.

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::cli {

struct reshard_options {
  std::string run_dir;                 // empty: the default one
  std::string database;
  std::string kind;                    // start: add-shard, remove-shard, rebalance
  std::string job;                     // abort
  int shard = -1;                      // start; -1: not named
  bool dry_run = false, json = false, follow = false;
};

// Exit statuses: 0 done (or, for a dry run, nothing is missing), 1 not done, 2 nobody to be asked,
// 130 ended by SIGINT while the move goes on.
int reshard_start(const reshard_options&);
int reshard_status(const reshard_options&);
int reshard_abort(const reshard_options&);

// What a line of the control socket says of a move, as one line for people (without its end).
result<std::string> render_move(std::string_view json);

}  // namespace pgsled::cli
