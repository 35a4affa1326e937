#pragma once
// pool: the connections of one snapshot::server_pool and who has them. A pure machine: events
// with their time in, actions out; no socket, no clock, no thread. The driver calls an event, then
// carries out everything take() returns, and calls tick() at deadline() at the latest.
//
// States of a connection (one private function changes them):
//
//   retrying ⇄ connecting → idle ⇄ checking
//                            ↓ ↑
//                  cleaning ← lent        any → closing → gone
//
// Promise: connections in any state plus announced orphans never exceed the budget, except what
// already was there when the budget was lowered; a connection has at most one holder.
//
// Fairness. Holders with demand or leases are active. Each has an allotment, budget ÷ active, the
// remainder to those who came first. A holder above its allotment is recalled while another below
// its own waits. Where there are more active holders than connections each gets its turn for at
// least `slice`. A holder without demand for `quiet` loses what others wait for, be they above
// their allotment, half of it at a time down to nothing, so that a short lull does not make
// connections wander.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/base/result.hpp"
#include "common/lease/messages.hpp"
#include "common/net/reactor.hpp"

namespace pgsled::pooler {

using net::duration;
using net::time_point;
using holder_id = std::uint64_t;
using lease::lease_id;
using std::chrono::milliseconds;

struct pool_limits {  // a zero or negative duration: never
  std::uint32_t budget = 10, min_size = 0;
  milliseconds idle_timeout{60'000}, server_lifetime{86'400'000}, server_lifetime_jitter{0};
  milliseconds healthcheck_interval{30'000}, recall_deadline{750}, connect_attempt_delay{0};
  std::uint32_t connect_attempts = 1;
  milliseconds slice{20}, quiet{100}, patience{1'000}, grace{50};
  milliseconds backoff_first{50}, backoff_most{1'000};
};

enum class connection_phase : std::uint8_t {
  retrying, connecting, idle, checking, lent, cleaning, closing
};
inline constexpr std::size_t phases = 7;
const char* name_of(connection_phase);

// What the driver does, in this order.
struct open_connection { lease_id id; };              // answer: connected or connect_failed
struct check_connection { lease_id id; };             // answer: checked
struct clean_connection { lease_id id; };             // DISCARD ALL; answer: checked
struct lend_connection { lease_id id; holder_id holder; lease::generation generation; };
struct recall_leases {
  holder_id holder;
  std::uint32_t more, outstanding;  // the latter includes the former
};
struct retire_lease { lease_id id; holder_id holder; };
struct close_connection {                             // answer: closed
  lease_id id;
  bool may_run;  // a statement may still run there: cancel first
};
struct tell_failure { holder_id holder; pg_error error; };
struct drop_holder { holder_id holder; };             // taken for dead; then holder_gone everywhere
using action = std::variant<open_connection, check_connection, clean_connection, lend_connection,
                            recall_leases, retire_lease, close_connection, tell_failure,
                            drop_holder>;

struct pool_counters {  // only ever grow
  std::uint64_t lent = 0, connects = 0, connect_failures = 0, recalls = 0, closes = 0, waits = 0,
                dirty = 0, broken = 0;
  std::uint64_t connect_us = 0;  // of those that succeeded
  std::uint64_t wait_us = 0;  // from a holder's demand (or its last grant) to the grant
};

class pool {
 public:
  // `ids` gives lease ids, unique within the process; it outlives the pool.
  pool(pool_limits, lease_id& ids, std::uint64_t jitter_seed, time_point now);

  // Events of holders. A give_back of what is not lent to that holder in that generation is
  // dropped (false).
  // `oldest_ms`: how long the holder's first client has waited.
  void demand(holder_id, std::uint32_t waiting, time_point now, std::uint32_t oldest_ms = 0);
  bool give_back(holder_id, lease_id, lease::generation, lease::condition, time_point now);
  void recall_ack(holder_id, time_point now);
  void holder_gone(holder_id, time_point now);
  void set_orphans(holder_id, std::uint32_t count, time_point now);

  // Events of the driver about connections.
  void connected(lease_id, time_point now);
  void connect_failed(lease_id, const pg_error&, time_point now);
  void checked(lease_id, bool good, time_point now);  // after check and clean
  void lost(lease_id, time_point now);                // an idle one ended by itself
  void closed(lease_id, time_point now);
  void retire(lease_id);  // closed when it comes back

  // `renew`: host, credentials or startup parameters changed; old connections are retired.
  void configure(const pool_limits&, bool renew, time_point now);
  void drain(time_point now);  // lends nothing more, takes everything back
  void tick(time_point now);
  std::optional<time_point> deadline() const;
  std::vector<action> take();

  bool is_lent(lease_id, lease::generation, holder_id) const;
  bool draining() const { return draining_; }
  bool empty() const { return members_.empty(); }
  bool healthy() const { return backoff_.count() == 0; }  // the last attempt to connect went well
  bool over_budget() const { return used() > limits_.budget; }
  std::uint32_t in_phase(connection_phase phase) const {
    return counts_[static_cast<std::size_t>(phase)];
  }
  std::uint32_t orphans() const;
  std::uint32_t used() const;  // all states and orphans
  std::uint64_t waiting() const;
  const pool_limits& limits() const { return limits_; }
  const pool_counters& counters() const { return counters_; }
  struct view {
    lease_id id;
    connection_phase phase;
    holder_id holder;
    lease::generation generation;
    time_point since, born;
    std::uint32_t checks;  // health checks so far
  };
  std::vector<view> connections() const;

 private:
  struct member {
    lease_id id = 0;
    connection_phase phase = connection_phase::connecting;
    holder_id holder = 0;
    lease::generation generation = 0;
    std::uint32_t attempt = 1, checks = 0;
    bool old = false;      // lifetime over or replaced: close when it comes back
    time_point since, born, expires, proven;  // proven: last time it was known to be good
    time_point retry_at;
  };
  // Leases can be in long transactions while a holder's other clients wait for ever: its allotment
  // is used up, and those of others turn over. Then the wait decides, not the allotment.
  static constexpr std::uint32_t starving_ms = 250;
  struct holder {
    std::uint32_t waiting = 0, leases = 0, recalled = 0, unacknowledged = 0, orphans = 0;
    std::uint64_t arrived = 0;       // order of demand; a grant sends it to the back
    time_point waiting_since, quiet_since, asked_at, lent_at, taken_at;
    std::uint32_t oldest_ms = 0;     // as last told; a grant makes it 0
    bool starving() const { return waiting > 0 && oldest_ms >= starving_ms; }
    bool warned = false;             // the deadline has passed, the grace has not
    duration quiet_for{0};           // grows while what a lull costs is asked back soon
    bool idle() const { return waiting + leases + orphans + unacknowledged == 0; }
  };

  void enter(member&, connection_phase, time_point now);
  void begin_open(time_point now);
  void close(member&, bool may_run, time_point now);
  void settle(time_point now);  // after every event: lend, open, trim, recall
  void lend_idle(time_point now);
  holder_id next_to_serve() const;
  void lend(member&, holder_id, time_point now);
  void open_wanted(time_point now);
  void trim(time_point now);
  void recall_unfair(time_point now);
  void recall_above(std::uint64_t coming, time_point now);
  void recall_quiet(std::uint64_t coming, time_point now);
  void recall_for_starving(std::uint64_t coming, time_point now);
  void recall_from(holder_id, holder&, std::uint32_t count, time_point now);
  void expire(time_point now);
  void fail_waiting(const pg_error&, time_point now);
  std::map<holder_id, std::uint32_t> allotments(bool& turns) const;
  std::uint32_t lendable_budget(time_point now) const;
  std::uint32_t live() const;
  std::uint32_t supply() const;  // will be free without anybody giving back
  std::uint32_t recalled() const;
  void forget(lease_id);
  member* find(lease_id);
  void forget_if_idle(holder_id);
  time_point lifetime_end(time_point now);

  pool_limits limits_;
  lease_id& ids_;
  std::uint64_t random_;
  std::uint64_t arrivals_ = 0;
  bool draining_ = false;
  duration backoff_{0};
  time_point backoff_until_, settled_at_;
  std::map<lease_id, member> members_;
  std::map<holder_id, holder> holders_;
  std::uint32_t counts_[phases] = {};
  std::vector<action> actions_;
  pool_counters counters_;
};

}  // namespace pgsled::pooler
