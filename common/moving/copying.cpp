#include "common/moving/copying.hpp"

#include <algorithm>

namespace pgsled::moving {

copy_queue::copy_queue(std::span<const table_size> tables, std::uint64_t blocks_in_part) {
  std::vector<table_size> by_size(tables.begin(), tables.end());
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const auto& a, const auto& b) { return a.blocks > b.blocks; });
  for (const table_size& one : by_size) {
    std::uint64_t from = 0;
    for (; one.blocks - from > blocks_in_part; from += blocks_in_part) {
      parts_.push_back({one.source, one.table, from, from + blocks_in_part});
    }
    parts_.push_back({one.source, one.table, from, std::nullopt});
  }
  std::reverse(parts_.begin(), parts_.end());
}

std::optional<copy_part> copy_queue::take(std::uint32_t preferred_source) {
  if (parts_.empty()) return std::nullopt;
  auto found = std::find_if(parts_.rbegin(), parts_.rend(), [&](const copy_part& one) {
    return one.source == preferred_source;
  });
  if (found == parts_.rend()) found = parts_.rbegin();
  const copy_part one = *found;
  parts_.erase(std::next(found).base());
  return one;
}

std::int64_t copy_rate::take(std::int64_t bytes, std::int64_t now) {
  if (rate_ <= 0) return 0;
  constexpr std::int64_t second = 1'000'000;
  constexpr double longest = 60.0 * second;
  const double cost = static_cast<double>(bytes) * second / static_cast<double>(rate_);
  paid_until_ = std::max(paid_until_, now) + static_cast<std::int64_t>(std::min(cost, longest));
  return std::max<std::int64_t>(0, paid_until_ - now);
}

}  // namespace pgsled::moving
