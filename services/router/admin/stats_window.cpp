#include "services/router/admin/stats_window.hpp"

#include <algorithm>

namespace pgsled::router {

void stats_window::sample(const std::vector<gathered_row>& rows, std::int64_t now) {
  grown_.clear();
  for (const gathered_row& row : rows) {
    const auto pool = static_cast<std::uint32_t>(row.number("pool"));
    kept& before = rows_[{row.instance, pool}];
    for (const auto& [name, text] : row.values) {
      if (name == "pool") continue;
      const std::uint64_t value = row.number(name);
      std::uint64_t& last = before.last[name];
      // Less than before: another process of that name.
      if (!first_) grown_[pool][name] += value >= last ? value - last : value;
      last = value;
    }
  }
  for (auto& [key, one] : rows_) ++one.missed;
  for (const gathered_row& row : rows) {
    rows_[{row.instance, static_cast<std::uint32_t>(row.number("pool"))}].missed = 0;
  }
  std::erase_if(rows_, [](const auto& one) { return one.second.missed > max_missed; });
  length_ = first_ ? 0 : std::max<std::int64_t>(1, now - taken_at_);
  taken_at_ = now;
  first_ = false;
}

std::uint64_t stats_window::grown(std::uint32_t pool, std::string_view counter) const {
  const auto of = grown_.find(pool);
  if (of == grown_.end()) return 0;
  const auto found = of->second.find(counter);
  return found == of->second.end() ? 0 : found->second;
}

std::uint64_t stats_window::rate(std::uint32_t pool, std::string_view counter) const {
  return length_ == 0 ? 0 : grown(pool, counter) * 1000 / static_cast<std::uint64_t>(length_);
}

}  // namespace pgsled::router
