#pragma once
// sql: what an operator typed into the admin database. Not SQL, a handful of commands, so
// this splits words and quotes and no more. Pure.

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::router {

struct admin_statement {
  enum class command {
    show,        // `what` in lower case, `columns` as asked for
    reload,
    shutdown,
    quiet,       // what drivers say to any database: answered with `tag` and nothing else
    select_one,  // SELECT 1, the drivers' ping
    reshard,     // `what` is the goal, of `database`, with `shard` or `to` if it was named
    follow,      // the task that moves `database` to `to` already does it: its id
    cutover,     // `what` is the id of a task; empty: the only one
    stop_task,   // `what` is its id
  };
  admin_statement::command verb = admin_statement::command::show;
  std::string what, tag;
  std::vector<std::string> columns;
  std::string database, shard;
  std::string to, cutover;   // reshard to another cluster: its database; automatic or wait
};

// 42601 for what cannot be read, 0A000 for what PgDog knows and this version does not.
result<admin_statement> read_admin_statement(std::string_view sql);

}  // namespace pgsled::router
