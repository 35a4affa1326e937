#pragma once
// buckets: which buckets move when a shard joins. Pure.

#include <cstdint>
#include <span>
#include <vector>

namespace pgsled::moving {

using bucket_map = std::vector<std::uint32_t>;   // bucket → shard

inline constexpr std::size_t max_buckets = 65'536;

// The same placement with enough buckets to hand out in small parts: B·k of them, with
// map[b] = old[b mod B], because (hash mod B·k) mod B = hash mod B. The map itself when it has
// enough already for `shards` that own some, or could not have more.
bucket_map refined(const bucket_map&, std::size_t shards);

// The buckets that `newcomer`, which owns none, gets so that all own about the same: 1/(N+1) of
// all, from each old shard evenly. In ascending order; nothing else changes its shard.
std::vector<std::uint32_t> for_newcomer(const bucket_map&, std::uint32_t newcomer);

// The map after `moved` went to `to`.
bucket_map with(bucket_map, std::span<const std::uint32_t> moved, std::uint32_t to);

}  // namespace pgsled::moving
