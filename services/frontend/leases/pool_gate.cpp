#include "services/frontend/leases/pool_gate.hpp"

#include <algorithm>

#include "services/frontend/shards/transaction.hpp"

namespace pgsled::frontend {

std::optional<std::size_t> who_gives_up(const std::vector<gated>& all,
                                        const std::map<const void*, std::size_t>& leases,
                                        net::time_point now) {
  const auto leases_of = [&](const void* pool) {
    const auto found = leases.find(pool);
    return found == leases.end() ? std::size_t{0} : found->second;
  };
  std::vector<std::size_t> stuck(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) stuck[i] = i;
  while (!stuck.empty()) {
    std::map<const void*, std::size_t> held;
    for (const std::size_t one : stuck) {
      for (const void* pool : all[one].holds) ++held[pool];
    }
    // One whose pool has a lease in other hands will get that, or one that follows.
    const auto moves = std::erase_if(stuck, [&](std::size_t i) {
      const gated& one = all[i];
      if (one.waits_for == nullptr || held[one.waits_for] < leases_of(one.waits_for)) return true;
      return leases_of(one.waits_for) == 0 && !one.wanted;
    });
    if (moves == 0) break;
  }
  std::erase_if(stuck, [&](std::size_t i) {
    return now - all[i].since < (leases_of(all[i].waits_for) > 0 ? pool_gate::patience
                                                                 : pool_gate::elsewhere);
  });
  if (stuck.empty()) return std::nullopt;
  return *std::max_element(stuck.begin(), stuck.end(), [&](std::size_t a, std::size_t b) {
    return all[a].since < all[b].since;
  });
}

void pool_gate::enter(shard_transaction& one) { waiting_.push_back(&one); }
void pool_gate::leave(shard_transaction& one) {
  if (!waiting_.empty()) std::erase(waiting_, &one);
}

void pool_gate::tick(net::time_point now) {
  if (waiting_.empty()) return;
  std::vector<gated> all;
  std::map<const void*, std::size_t> leases;
  for (const shard_transaction* one : waiting_) {
    gated made;
    const local_pool* pool = one->waits_for();
    made.waits_for = pool;
    made.since = one->waits_since();
    if (pool != nullptr) leases[pool] = pool->leases();
    for (const local_pool* held : one->holds()) {
      made.holds.push_back(held);
      made.wanted = made.wanted || held->recalled();
    }
    all.push_back(std::move(made));
  }
  const auto youngest = who_gives_up(all, leases, now);
  if (!youngest) return;
  counters_.pool_deadlocks.add();
  waiting_[*youngest]->give_up(
      {"40P01",
       "transactions over several shards hold all connections of their pools and wait for each "
       "other's",
       "Repeat the transaction; raise pool_size, or keep to one order of shards.", {}});
}

}  // namespace pgsled::frontend
