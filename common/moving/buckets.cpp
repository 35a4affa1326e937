#include "common/moving/buckets.hpp"

#include <algorithm>
#include <map>

namespace pgsled::moving {

namespace {

constexpr std::size_t fewest_for_a_shard = 64, some_for_a_shard = 256;

}  // namespace

bucket_map refined(const bucket_map& from, std::size_t shards) {
  if (from.empty() || from.size() >= fewest_for_a_shard * shards) return from;
  const std::size_t wanted = (some_for_a_shard * shards + from.size() - 1) / from.size();
  const std::size_t factor = std::min(wanted, max_buckets / from.size());
  bucket_map to;
  to.reserve(from.size() * factor);
  for (std::size_t i = 0; i < factor; ++i) to.insert(to.end(), from.begin(), from.end());
  return to;
}

std::vector<std::uint32_t> for_newcomer(const bucket_map& from, std::uint32_t newcomer) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> owned;
  for (std::uint32_t bucket = 0; bucket < from.size(); ++bucket) {
    owned[from[bucket]].push_back(bucket);
  }
  std::vector<std::uint32_t> moved;
  if (owned.contains(newcomer)) return moved;
  const std::size_t share = from.size() / (owned.size() + 1);
  while (moved.size() < share) {
    const auto richest =
        std::max_element(owned.begin(), owned.end(), [](const auto& a, const auto& b) {
          return a.second.size() < b.second.size();
        });
    moved.push_back(richest->second.back());
    richest->second.pop_back();
  }
  std::sort(moved.begin(), moved.end());
  return moved;
}

bucket_map with(bucket_map map, std::span<const std::uint32_t> moved, std::uint32_t to) {
  for (const std::uint32_t bucket : moved) map.at(bucket) = to;
  return map;
}

}  // namespace pgsled::moving
