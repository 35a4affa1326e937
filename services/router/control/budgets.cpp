#include "services/router/control/budgets.hpp"

#include <algorithm>

namespace pgsled::router {

std::vector<std::uint32_t> divide(std::uint32_t size, std::size_t count, std::uint32_t rotation) {
  if (count == 0) return {};
  const auto parts = static_cast<std::uint32_t>(count);
  std::vector<std::uint32_t> shares_of(count, size / parts);
  for (std::uint32_t extra = 0; extra < size % parts; ++extra) {
    ++shares_of[(rotation % parts + extra) % parts];
  }
  return shares_of;
}

void budgets::settle(holding& held, std::uint64_t acknowledged) {
  // An acknowledgement covers every earlier epoch. The value acknowledged last stays the least
  // that may be in use until a newer one is acknowledged.
  std::uint32_t in_force = held.bound;
  bool found = false;
  auto& list = held.unacknowledged;
  while (!list.empty() && list.front().first <= acknowledged) {
    in_force = list.front().second;
    found = true;
    list.erase(list.begin());
  }
  if (!found) return;
  held.bound = in_force;
  for (const auto& [epoch, value] : list) held.bound = std::max(held.bound, value);
}

std::uint32_t budgets::grant(pool_holdings& pool, const std::string& pooler, std::uint32_t wanted,
                             std::uint32_t size, std::uint64_t epoch) {
  holding& held = pool[pooler];
  std::uint32_t value = wanted;
  if (wanted > held.sent) {
    std::uint64_t others = 0;
    for (const auto& [name, other] : pool) {
      if (name != pooler) others += other.most();
    }
    const auto left = others >= size ? 0u : static_cast<std::uint32_t>(size - others);
    value = std::max(held.sent, std::min(wanted, left));
    const bool some_adopted = std::any_of(pool.begin(), pool.end(),
                                          [](const auto& one) { return one.second.adopted; });
    if (hold_ && some_adopted) value = held.sent;
    if (value < wanted) pending_ = true;
  }
  if (value != held.sent) {
    held.sent = value;
    held.bound = std::max(held.bound, value);
    held.unacknowledged.emplace_back(epoch, value);
  }
  return value;
}

shares budgets::assign(const std::vector<pool_size>& wanted, std::uint64_t epoch) {
  pending_ = false;
  shares out;
  std::map<pool_number, const pool_size*> known;
  for (const pool_size& pool : wanted) known[pool.pool] = &pool;
  for (auto& [number, pool] : pools_) {
    // First everything that shrinks: no longer wanted, or not by this pooler.
    const auto found = known.find(number);
    for (auto& [name, held] : pool) {
      const bool stays = found != known.end() &&
                         std::find(found->second->poolers.begin(), found->second->poolers.end(),
                                   name) != found->second->poolers.end();
      if (!stays && held.sent != 0) {
        held.sent = 0;
        held.unacknowledged.emplace_back(epoch, 0);
      }
    }
  }
  for (const pool_size& pool : wanted) {
    const auto parts = divide(pool.size, pool.poolers.size(), pool.pool);
    auto& held = pools_[pool.pool];
    std::vector<std::uint32_t> given(parts.size(), 0);
    for (const bool growing : {false, true}) {
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if ((parts[i] > held[pool.poolers[i]].sent) != growing) continue;
        given[i] = grant(held, pool.poolers[i], parts[i], pool.size, epoch);
      }
    }
    const auto least = divide(std::min(pool.min_size, pool.size), parts.size(), pool.pool);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      out[pool.pool][pool.poolers[i]] = {held[pool.poolers[i]].sent,
                                         std::min(least[i], held[pool.poolers[i]].sent)};
    }
  }
  return out;
}

bool budgets::acknowledged(const std::string& pooler, std::uint64_t epoch) {
  for (auto it = pools_.begin(); it != pools_.end();) {
    const auto found = it->second.find(pooler);
    if (found != it->second.end()) {
      settle(found->second, epoch);
      if (found->second.nothing()) it->second.erase(found);
    }
    it = it->second.empty() ? pools_.erase(it) : std::next(it);
  }
  return pending_;
}

bool budgets::over(const std::string& pooler,
                   const std::vector<std::pair<pool_number, std::uint32_t>>& has) {
  for (auto& [number, pool] : pools_) {
    const auto found = pool.find(pooler);
    if (found == pool.end()) continue;
    const auto said = std::find_if(has.begin(), has.end(), [id = number](const auto& one) {
      return one.first == id;
    });
    found->second.over = said == has.end() ? 0 : said->second;
  }
  return pending_;
}

bool budgets::dropped(const std::string& pooler) {
  for (auto it = pools_.begin(); it != pools_.end();) {
    it->second.erase(pooler);
    it = it->second.empty() ? pools_.erase(it) : std::next(it);
  }
  return pending_;
}

void budgets::adopt(const std::string& pooler,
                    const std::vector<std::pair<pool_number, std::uint32_t>>& has) {
  for (const auto& [number, value] : has) {
    holding held;
    held.sent = held.bound = value;
    held.adopted = true;
    pools_[number][pooler] = held;
  }
}

}  // namespace pgsled::router
