#pragma once
// goal: what an operator wants of a shard map, and which buckets have to move next for it. Pure.
//
// A goal is reached by moves to one shard each, one after the other. Each is worked out from the
// map that holds when it begins, so whoever goes on with a goal needs no other memory of it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/moving/buckets.hpp"

namespace pgsled::moving {

enum class goal_kind : std::uint8_t {
  add_shard,      // `shard`, which owns none, gets as many as the others keep
  remove_shard,   // `shard` gives all it owns to the others that own some
  rebalance,      // those that own some own about the same
};
std::string_view name_of(goal_kind);                       // add-shard, remove-shard, rebalance
std::optional<goal_kind> goal_kind_of(std::string_view);

struct goal {
  goal_kind kind = goal_kind::add_shard;
  std::uint32_t shard = 0;             // that joins or leaves; of no meaning for rebalance
};
std::string in_words(const goal&);     // "remove-shard 2", "rebalance"

struct next_move {
  std::uint32_t destination = 0;
  std::vector<std::uint32_t> buckets;  // in ascending order, never empty
};

// How many shards own buckets when the goal is reached, for refined().
std::size_t owners_after(const bucket_map&, const goal&);

// Why it can never be reached: 55000. `shards`: of the file.
std::optional<pg_error> objection(const bucket_map&, std::size_t shards, const goal&);

// None when it is reached. A bucket moves at most once on the way to a goal, and only from where
// there are too many to where there are too few; each shard is the destination of at most one move.
std::optional<next_move> next_of(const bucket_map&, const goal&);

// The shards that own some of `buckets`, in order.
std::vector<std::uint32_t> owners_of(const bucket_map&, const std::vector<std::uint32_t>& buckets);

}  // namespace pgsled::moving
