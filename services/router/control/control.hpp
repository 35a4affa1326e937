#pragma once
// control: the router's truth, as one machine: configuration, members, shares, shard maps, epoch.
// Events go in; refresh() says what must be sent to whom. Pure: no socket, no clock (times are
// milliseconds of a steady clock). Thread rule: one thread.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/bus/envelope.hpp"
#include "common/config/config.hpp"
#include "services/router/control/budgets.hpp"
#include "services/router/control/membership.hpp"
#include "services/router/control/snapshots.hpp"
#include "services/router/control/topology.hpp"

namespace pgsled::router {

// Longest time between a router's start and the hello of a peer that is there: twice the longest
// pause between two attempts to connect would be safe, the pause and half of it is enough.
inline constexpr std::int64_t succession_ms = 1500;

class control {
 public:
  // `epoch` is milliseconds since 1970, so that a restarted router is always the newer one.
  control(std::uint64_t epoch, std::int64_t now);

  void configure(config::configuration);
  // Why a configuration cannot take the place of the present one: rows are on a shard that it does
  // not have, or are being moved.
  std::optional<pg_error> objection(const config::configuration&) const;
  // Before the first configure().
  void set_login_seed(std::string seed) { book_ = verifier_book(std::move(seed)); }
  void set_client_keys(std::vector<std::string> keys) { client_keys_ = std::move(keys); }
  void set_state(const std::string& database, database_state);

  // `has_epoch` is what the peer acknowledged last, 0 for a new one. A peer that has one shows
  // that this router succeeds another: it then says nothing until the others have had the time to
  // find it, because a snapshot that leaves out poolers which are merely late would make
  // frontends drop what they use.
  membership::hello_outcome hello(const std::string& from, byte_span json, std::uint64_t has_epoch,
                                  std::int64_t now);
  bool heard(const std::string& from, std::int64_t now) { return members_.heard(from, now); }
  void bye(const std::string& from);
  void forget(const std::string& from);  // as if it had never said hello
  // `over`: pools of which it has more connections than its share, and how many. `drained`: fences
  // with nothing behind them there.
  void acknowledge(const std::string& from, std::uint64_t epoch,
                   const std::vector<std::pair<pool_number, std::uint32_t>>& over = {},
                   std::vector<std::string> drained = {});
  // Who has not said yet, of the newest snapshot, that nothing is left behind this fence.
  std::vector<std::string> behind_fence(const std::string& fence) const;
  void tick(std::int64_t now);

  struct outgoing {
    std::string to;
    bus::kind kind{};             // welcome or config
    std::uint64_t epoch = 0;
    std::string json;
  };
  // True when something happened that may change a snapshot, and it may be told.
  bool stale() const { return stale_ && !succeeding_; }
  bool untold() const { return stale_; }
  // New snapshots for those whose snapshot differs from what they have; poolers first, so that
  // they know a pool before a frontend asks for it. One new epoch for all of them, or none.
  std::vector<outgoing> refresh();

  std::uint64_t epoch() const { return epoch_; }
  const config::configuration& configuration() const { return config_; }
  const router::topology& topology() const { return topology_; }
  const membership& members() const { return members_; }
  const database_states& states() const { return states_; }
  const database_state* state(const std::string& database) const;
  const database_definition* database(const std::string& name) const;
  const snapshot::server_pool* pool(std::uint32_t id) const;
  const pool_definition* pool_definition_of(std::uint32_t id) const;
  std::vector<std::string> gone_since_last() { return std::exchange(gone_, {}); }

 private:
  std::string snapshot_for(const member&, const shares&, snapshot::frontend& of_frontends) const;

  std::uint64_t epoch_;
  std::uint64_t configured_ = 0;         // a number for the configuration
  std::int64_t started_;
  std::int64_t last_tick_;
  bool stale_ = false, holding_ = true, succeeding_ = false;
  config::configuration config_;
  router::topology topology_;
  pool_ids ids_;
  verifier_book book_;
  membership members_;
  router::budgets budgets_;
  database_states states_;
  std::vector<std::string> client_keys_, gone_;
};

// Why `to` cannot take over from `database`; none: it can, as far as the file goes.
std::optional<pg_error> cluster_objection(const control&, const std::string& database,
                                          const std::string& to);

}  // namespace pgsled::router
