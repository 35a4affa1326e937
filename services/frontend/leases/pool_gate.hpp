#pragma once
// pool_gate: keeps transactions over several shards from waiting for each other's leases for ever:
// one holds the last lease of shard 0 and wants one of shard 1, another the other way round.
//
// What is guaranteed. Who holds leases goes before who holds none (local_pool). Of those that wait
// here for a further lease a worker sees which cannot be helped by anybody here: every lease of the
// pool that they want, as far as this worker has any, is held by one of them. Where it has some of
// that pool, the youngest gives up with 40P01 after `patience`; where it has none, after
// `elsewhere`, and only if the pooler has recalled leases that it holds, that is if somebody
// elsewhere waits for those. So on until one can go on. A circle of pools, within a worker or
// across workers and frontends, consists of such transactions: each wants a lease of a pool that
// others of the circle hold, and those who wait elsewhere starve, which makes the pooler recall.
// What nobody sees (a lease held by somebody who waits for a row of one that waits here) ends with
// 53300 after checkout_timeout. Thread rule: its worker's.

#include <chrono>
#include <map>
#include <optional>
#include <vector>

#include "common/net/reactor.hpp"
#include "services/frontend/probe.hpp"

namespace pgsled::frontend {

class shard_transaction;

// What decides it, of those that wait; pools are told apart by their address.
struct gated {
  const void* waits_for = nullptr;       // pool; null: for none any more
  net::time_point since{};
  std::vector<const void*> holds;        // the pool of each lease
  bool wanted = false;                   // somebody elsewhere waits for one of those
};
// Which of them gives up now; none: nobody, or not yet. `leases`: how many this worker has of each
// pool that is waited for.
std::optional<std::size_t> who_gives_up(const std::vector<gated>&,
                                        const std::map<const void*, std::size_t>& leases,
                                        net::time_point now);

class pool_gate {
 public:
  explicit pool_gate(probe& counters) : counters_(counters) {}
  static constexpr auto patience = std::chrono::milliseconds(150);
  static constexpr auto elsewhere = std::chrono::milliseconds(1000);
  void enter(shard_transaction&);
  void leave(shard_transaction&);
  void tick(net::time_point now);   // costs nothing while nobody waits

 private:
  probe& counters_;
  std::vector<shard_transaction*> waiting_;
};

}  // namespace pgsled::frontend
