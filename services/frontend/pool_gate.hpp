#pragma once
// pool_gate: keeps transactions over several shards from waiting for each other's leases for ever:
// one holds the last lease of shard 0 and wants one of shard 1, another the other way round.
//
// What is guaranteed. Who holds leases goes before who holds none (local_pool). If among the
// transactions of this worker that wait for a further lease there are some for whom every lease
// of the pool they want, as far as this worker has any, is held by one of them, then nothing that
// happens here can help them: after `patience` the youngest gives up with 40P01, and so on until
// one can go on. A deadlock of pools across workers and frontends leaves every worker that has a
// lease in it in that state, so it is ended as well. What no worker sees (a lease that is held by
// somebody who waits for a row of the waiting) is the router's to find, or ends with 53300 after
// checkout_timeout. Pure but for the objects it looks at. Thread rule: its worker's.

#include <chrono>
#include <vector>

#include "common/net/reactor.hpp"
#include "services/frontend/probe.hpp"

namespace pgsled::frontend {

class shard_transaction;

class pool_gate {
 public:
  explicit pool_gate(probe& counters) : counters_(counters) {}
  static constexpr auto patience = std::chrono::milliseconds(150);
  void enter(shard_transaction&);
  void leave(shard_transaction&);
  void tick(net::time_point now);   // costs nothing while nobody waits

 private:
  probe& counters_;
  std::vector<shard_transaction*> waiting_;
};

}  // namespace pgsled::frontend
