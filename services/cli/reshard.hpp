#pragma once
// `pgsled reshard`: asks a replicator by its control socket (docs/formats/control.md) to move
// rows, and shows how it goes. Blocking; an interrupted command does not end the move. The move of
// a database to another cluster is shown until it waits for the operator.

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::cli {

struct reshard_options {
  std::string run_dir;                 // empty: the default one
  std::string database;
  std::string kind;                    // start: add-shard, remove-shard, rebalance, new-cluster
  std::string to;                      // new-cluster: the other database
  std::string act;                     // act: cutover, roll-back, finish
  std::string job;                     // abort, act
  int shard = -1;                      // start; -1: not named
  bool dry_run = false, json = false, follow = false;
  bool wait = false;                   // new-cluster: for cutover
};

// Exit statuses: 0 done (or, for a dry run, nothing is missing), 1 not done, 2 nobody to be asked,
// 130 ended by SIGINT while the move goes on.
int reshard_start(const reshard_options&);
int reshard_status(const reshard_options&);
int reshard_abort(const reshard_options&);
int reshard_act(const reshard_options&);     // until it has had its effect

// What a line of the control socket says of a move, as one line for people (without its end).
result<std::string> render_move(std::string_view json);

}  // namespace pgsled::cli
