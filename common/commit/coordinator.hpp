#pragma once
// coordinator: commits one transaction over several shards, all or nothing. A pure machine: what
// the servers answered and the time go in; what to send and what to tell the client come out.
//
//   naming → preparing → deciding → finishing → over
//              ↘ aborting ↗ over
//
// The other participants prepare; then the coordinator's server writes the decision row and
// commits, in one message, which is the commit point; then the others COMMIT PREPARED; then the
// client is answered. A vote is the tag PREPARE TRANSACTION, the decision the tag COMMIT: a failed
// transaction answers ROLLBACK without any error. What cannot be finished here is left to the
// resolver (resolver.hpp), which needs nothing from this process.
//
// Life cycle: construct, begin(), then one event for each thing that happens, until over().
// At most one message is outstanding on a shard. Thread rule: its owner's.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/commit/choice.hpp"
#include "common/commit/name.hpp"

namespace pgsled::commit {

struct limits {
  std::int64_t decide_within = 5000;   // ms, by the coordinator's server; 1 … 60 000
  std::int64_t finish_within = 2000;   // ms after the decision (or the abort) the client waits
  std::int64_t retry_after = 100;      // ms, when somebody else is finishing a participant
};

struct action {
  enum class kind {
    send,     // a simple Query with `sql` to `shard`
    answer,   // tell the client: `error`, else the tag COMMIT, after `warning` if there is one
    release,  // `shard` owes nothing more and has no transaction: give its connection back
    drop,     // `shard`'s connection may hold an open transaction or owe an answer: close it
  };
  action::kind what = kind::send;
  std::uint32_t shard = 0;
  std::string sql;
  pg_error error{"", "", "", ""};      // of an answer; no SQLSTATE: it is committed
  std::string warning;
};

class coordinator {
 public:
  // `who` from choose(), with at least one participant. `database` as clients know it.
  coordinator(choice who, std::string database, std::string id, limits = {});

  std::vector<action> begin(std::int64_t now);
  // All of the message on `shard` succeeded: the last command tag, and the first column of the
  // last row, if any.
  std::vector<action> completed(std::uint32_t shard, std::string_view tag, std::string_view value,
                                std::int64_t now);
  // An ErrorResponse followed by ReadyForQuery. FATAL ones are lost(), whatever they say.
  std::vector<action> failed(std::uint32_t shard, const pg_error&, std::int64_t now);
  // The connection is gone.
  std::vector<action> lost(std::uint32_t shard, std::string_view why, std::int64_t now);
  std::vector<action> tick(std::int64_t now);   // at next_tick() or later

  bool over() const;              // every shard is released, dropped or lost, and the client told
  std::int64_t next_tick() const; // the largest value when nothing waits for time
  // A cancel would make a server commit without waiting for its standbys, and say COMMIT.
  bool may_cancel() const { return state_ < state::deciding; }

 private:
  enum class state { naming, preparing, deciding, finishing, aborting };
  enum class role { reader, other, coordinator };
  struct leg {
    role part = role::other;
    bool waits = false;       // a message is outstanding
    bool voted = false;       // a reader: has committed
    bool undoing = false;     // what is outstanding was sent because of the abort
    bool settled = false;     // released, dropped or lost
    bool confirmed = false;   // finished as decided, or nothing was to be done
    std::int64_t retry_at = 0;
  };
  using actions = std::vector<action>;

  bool two_phases() const { return !who_.prepared.empty(); }
  void send(actions&, std::uint32_t shard, leg&, std::string sql);
  void settle(actions&, std::uint32_t shard, leg&, action::kind);
  void prepare(actions&, std::int64_t now);
  void decide_if_all_voted(actions&, std::int64_t now);
  void decided(actions&, std::int64_t now);
  void abort(actions&, pg_error why, std::int64_t now);
  void undo(actions&, std::uint32_t shard, leg&);
  void finished(actions&, std::uint32_t shard, leg&, const pg_error* error, std::int64_t now);
  void unknown(actions&, std::string_view why);
  void answer_when_done(actions&);
  void answer(actions&, pg_error, std::string warning);

  choice who_;
  limits limits_;
  name name_;
  std::map<std::uint32_t, leg> legs_;
  std::map<std::uint32_t, std::string> gids_;
  state state_ = state::naming;
  pg_error why_{"", "", "", ""};   // of the abort
  std::int64_t until_ = 0;         // of what the client waits for now
  bool answered_ = false;
};

}  // namespace pgsled::commit
