#pragma once
// broadcast: a statement (DDL and the like) that runs on all shards: on each in a transaction, one
// shard after the other in shard order so that two of them never wait for each other, and
// committed only after it has succeeded on all. Also carries an explicit transaction of such
// statements until its COMMIT or ROLLBACK. A machine of steps: one statement on one shard each.
// Owned by its client; thread rule: the worker's.

#include <memory>
#include <string>
#include <vector>

#include "common/plan/plan.hpp"
#include "services/frontend/local_pool.hpp"
#include "services/frontend/server.hpp"

namespace pgsled::frontend {

class client;
class worker;

class broadcast {
 public:
  broadcast(worker&, client&);
  ~broadcast();

  // Takes the client's unit (whole messages) and answers it when all is done. `planned` is null
  // for the transaction's end; anything else that is not for all shards is refused.
  void run(std::string unit_bytes, std::string sql, const plan::plan* planned,
           const sql::statement* effect, bool in_transaction);
  void cancel();
  void abandon();  // the client is gone

 private:
  struct leg;
  struct step {
    std::size_t leg;
    std::string sql;
    bool settings = false, commit = false, rollback = false;
    bool answers = false;  // its command tag is the client's
    std::string tag{};
  };
  void acquire_next();
  void begin_steps();
  void advance();
  void command_complete(std::string_view tag);
  void step_done(leg&);
  void fail(const pg_error& why);
  void finish();
  void release_all();
  void answer(const pg_error* error);
  void add_statement_steps();
  std::string spreading_sql(std::size_t shard) const;

  worker& worker_;
  client& client_;
  std::vector<std::unique_ptr<leg>> legs_;
  std::vector<step> steps_;
  std::size_t at_ = 0;
  std::string unit_, sql_, tag_, begin_;
  std::vector<std::string> spread_;
  std::unique_ptr<pg_error> error_;
  bool explicit_ = false, ends_ = false, commits_ = false, abandoned_ = false;
  bool commit_failed_ = false;
  bool planned_change_ = false;  // the catalog is another after COMMIT
  std::size_t committed_ = 0;
};

}  // namespace pgsled::frontend
