#include "services/frontend/pool_gate.hpp"

#include <algorithm>
#include <map>

#include "services/frontend/shard_transaction.hpp"

namespace pgsled::frontend {

namespace {
// Others wait for what it holds.
bool is_wanted(const shard_transaction& one) {
  const auto held = one.holds();
  return std::any_of(held.begin(), held.end(), [](const auto* pool) { return pool->recalled(); });
}
}  // namespace

void pool_gate::enter(shard_transaction& one) { waiting_.push_back(&one); }
void pool_gate::leave(shard_transaction& one) {
  if (!waiting_.empty()) std::erase(waiting_, &one);
}

void pool_gate::tick(net::time_point now) {
  if (waiting_.empty()) return;
  auto stuck = waiting_;
  while (!stuck.empty()) {
    std::map<local_pool*, std::size_t> held;
    for (const auto* one : stuck) {
      for (auto* pool : one->holds()) ++held[pool];
    }
    // One whose pool has a lease in other hands will get that, or one that follows.
    const auto moves = std::erase_if(stuck, [&](const shard_transaction* one) {
      auto* pool = one->waits_for();
      if (pool == nullptr || held[pool] < pool->leases()) return true;
      return pool->leases() == 0 && !is_wanted(*one);
    });
    if (moves == 0) break;
  }
  std::erase_if(stuck, [&](const auto* one) {
    return now - one->waits_since() < (one->waits_for()->leases() > 0 ? patience : elsewhere);
  });
  if (stuck.empty()) return;
  auto* youngest = *std::max_element(stuck.begin(), stuck.end(), [](const auto* a, const auto* b) {
    return a->waits_since() < b->waits_since();
  });
  counters_.pool_deadlocks.add();
  youngest->give_up({"40P01",
                     "transactions over several shards hold all connections of their pools and "
                     "wait for each other's",
                     "Repeat the transaction; raise pool_size, or keep to one order of shards.",
                     {}});
}

}  // namespace pgsled::frontend
