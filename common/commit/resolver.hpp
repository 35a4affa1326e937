#pragma once
// resolver: finishes what coordinators left behind, from what the shards themselves show and from
// nothing else, so that any process may do it, several at once too. Pure: what was found goes in,
// a resolution for each transaction comes out; a resolution says one step after the other.
//
// The safety of it: a transaction is committed if and only if its decision row says so. Who wants
// to abort inserts an abort row under the same primary key, which waits for a commit in flight and
// loses to it. The backend that could still decide is ended first, so that its transaction ends
// with the others; and a decision has a deadline, checked by the server that makes it, that is
// over long before abort rows are forgotten.
//
// Prepared transactions must be read before decision rows are.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/commit/name.hpp"

namespace pgsled::commit {

// A prepared transaction that no coordinator answers for after `grace` is an orphan, and so is one
// whose decision can no longer be made: `slack` after its deadline, by the coordinator's clock.
// Rows are kept for `retention` and longer; so a prepared transaction that is older and has no row
// could have had one: it is in doubt. `retention` has to be longer than a standby can lag and be
// promoted.
struct resolver_limits {
  std::int64_t grace = 6'000;              // ms; above limits::decide_within
  std::int64_t retention = 24 * 3'600'000; // ms
  std::int64_t keep_rows = 25 * 3'600'000; // ms; above retention, for clocks that differ
  std::int64_t slack = 500;                // ms
};

struct found_prepared {
  std::string gid, owner;
  std::int64_t age = 0;            // ms, by the server's clock
  bool may_finish = true;          // the asking role may become the owner
};

enum class outcome { commit, abort };

struct found_decision {
  std::string key;
  outcome what = outcome::abort;
  std::vector<std::uint32_t> participants;   // of a commit
  std::int64_t age = 0;            // ms, by the server's clock
};

struct shard_findings {            // one per shard, in order
  bool reached = false;            // and is a primary: a standby shows nothing prepared
  std::string problem;             // when not reached: why
  std::vector<found_prepared> prepared;
  std::vector<found_decision> decisions;   // those of names found prepared, and old ones
  std::int64_t now = 0;            // ms since 1970 by the server's clock; 0: not known
};

struct step {
  enum class kind {
    end_backend,  // on the coordinator, if it is still in that transaction
    settle,       // insert the abort row unless there is a row; value: `commit` or `abort`
    finish,       // COMMIT PREPARED or ROLLBACK PREPARED of `gid` as `owner`
    forget,       // delete the row, if it is older than keep_rows
  };
  kind what = kind::settle;
  std::uint32_t shard = 0;
  std::string key, gid, owner;
  bool commit = false;             // of finish
};

class resolution {
 public:
  enum class state { in_progress, resolving, in_doubt, unreachable };

  // The next step to do; none when it is over. After each, say how it went.
  std::optional<step> next() const;
  void succeeded(std::string_view value);
  void failed(const pg_error&);    // a lost connection too

  // For people. Only `resolving` ones have steps.
  state what() const { return state_; }
  std::string_view state_name() const;   // "in progress", "committing", "in doubt", …
  const std::string& reason() const { return reason_; }
  const name& of() const { return name_; }
  std::int64_t age() const { return age_; }
  const std::vector<std::uint32_t>& participants() const { return participants_; }
  bool finished() const { return finished_; }   // nothing of it is left where it was found

 private:
  friend std::vector<resolution> resolve(const std::string&, const std::vector<shard_findings>&,
                                         const resolver_limits&);
  void doubt(std::string why);

  name name_;
  state state_ = state::resolving;
  std::string reason_;
  std::int64_t age_ = 0;
  std::vector<std::uint32_t> participants_;
  std::optional<found_decision> row_;
  std::vector<step> steps_;
  std::size_t at_ = 0;
  bool finished_ = false, left_ = false;
};

// What to do for the transactions found of this database, oldest first; then, in resolutions with
// an empty name, rows to forget: older than keep_rows, every shard reached, and nothing prepared
// under their name on any. A gid that starts with gid_prefix and is not readable is in doubt.
std::vector<resolution> resolve(const std::string& database, const std::vector<shard_findings>&,
                                const resolver_limits& = {});

}  // namespace pgsled::commit
