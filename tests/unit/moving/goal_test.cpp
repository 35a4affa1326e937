#include "common/moving/goal.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace pgsled::moving {
namespace {

std::map<std::uint32_t, std::size_t> counts(const bucket_map& map) {
  std::map<std::uint32_t, std::size_t> to;
  for (const auto owner : map) ++to[owner];
  return to;
}

// Follows a goal to its end, and checks on the way what every move has to keep to.
bucket_map follow(bucket_map map, const goal& of, std::size_t& moves) {
  const auto owners = owners_after(map, of);
  std::set<std::uint32_t> destinations, moved;
  for (moves = 0; const auto next = next_of(map, of); ++moves) {
    EXPECT_FALSE(next->buckets.empty());
    EXPECT_TRUE(std::is_sorted(next->buckets.begin(), next->buckets.end()));
    EXPECT_TRUE(destinations.insert(next->destination).second) << "one move to each";
    for (const auto bucket : next->buckets) {
      EXPECT_TRUE(moved.insert(bucket).second) << "a bucket moves once";
      EXPECT_NE(map.at(bucket), next->destination);
    }
    for (const auto source : owners_of(map, next->buckets)) {
      EXPECT_FALSE(destinations.contains(source)) << "nothing is passed on";
      EXPECT_TRUE(of.kind != goal_kind::remove_shard || source == of.shard);
    }
    map = with(map, next->buckets, next->destination);
    if (moves > 100) ADD_FAILURE() << "it has no end";
    if (moves > 100) break;
  }
  EXPECT_LE(moves, owners);
  return map;
}

bucket_map random_map(std::mt19937& chance) {
  const std::size_t shards = 1 + chance() % 9;
  bucket_map map(1 + chance() % 300);
  const bool skewed = chance() % 2 == 0;
  for (auto& owner : map) {
    owner = static_cast<std::uint32_t>(chance() % shards);
    if (skewed) owner = static_cast<std::uint32_t>(chance() % (owner + 1));
  }
  return map;
}

TEST(goal, what_is_emptied_goes_where_there_is_least) {
  std::mt19937 chance(1);
  for (int round = 0; round < 4000; ++round) {
    const auto map = random_map(chance);
    const auto before = counts(map);
    const auto shard = map[chance() % map.size()];
    const goal of{goal_kind::remove_shard, shard};
    if (before.size() == 1) {
      EXPECT_TRUE(objection(map, 10, of));
      EXPECT_FALSE(next_of(map, of));
      continue;
    }
    ASSERT_FALSE(objection(map, 10, of));
    std::size_t moves = 0;
    const auto after_it = follow(map, of, moves);
    const auto after = counts(after_it);
    ASSERT_FALSE(after.contains(shard));
    std::size_t low = map.size(), high = 0;   // of those that got some
    for (const auto& [owner, count] : after) {
      ASSERT_TRUE(before.contains(owner)) << "nothing goes to a shard that owns none";
      ASSERT_GE(count, before.at(owner));
      low = std::min(low, count);
      if (count > before.at(owner)) high = std::max(high, count);
    }
    ASSERT_LE(high, low + 1) << "nobody gets more while another has less";
    for (std::size_t i = 0; i < map.size(); ++i) {
      if (map[i] != shard) {
        ASSERT_EQ(after_it[i], map[i]) << "nothing is shuffled between the others";
      }
    }
    ASSERT_FALSE(next_of(after_it, of)) << "it is reached";
  }
}

TEST(goal, rebalancing_moves_only_what_is_too_much) {
  std::mt19937 chance(2);
  for (int round = 0; round < 4000; ++round) {
    const auto map = random_map(chance);
    const auto before = counts(map);
    const goal of{goal_kind::rebalance, 0};
    std::size_t moves = 0;
    const auto after_it = follow(map, of, moves);
    const auto after = counts(after_it);
    ASSERT_EQ(after.size(), before.size());
    std::size_t low = map.size(), high = 0, gained = 0, least = 0;
    for (const auto& [owner, count] : after) {
      low = std::min(low, count);
      high = std::max(high, count);
      if (count > before.at(owner)) gained += count - before.at(owner);
    }
    const std::size_t even = map.size() / before.size();
    std::size_t above = map.size() % before.size();   // that many may have one more
    for (const auto& [owner, count] : before) {
      std::size_t keeps = even;
      if (count > even && above > 0) {
        --above;
        ++keeps;
      }
      if (count > keeps) least += count - keeps;
    }
    ASSERT_LE(high, low + 1);
    ASSERT_EQ(gained, least) << "as few as can be";
    std::size_t changed = 0;
    for (std::size_t i = 0; i < map.size(); ++i) changed += map[i] != after_it[i] ? 1 : 0;
    ASSERT_EQ(changed, gained);
  }
}

TEST(goal, a_newcomer_gets_its_share_in_one_move) {
  std::mt19937 chance(3);
  for (int round = 0; round < 1000; ++round) {
    auto map = random_map(chance);
    const auto owners = counts(map).size();
    const goal of{goal_kind::add_shard, 9};
    map = refined(map, owners_after(map, of));
    std::size_t moves = 0;
    const auto after = follow(map, of, moves);
    ASSERT_EQ(moves, 1u);
    ASSERT_EQ(counts(after)[9], map.size() / (owners + 1));
  }
  EXPECT_TRUE(objection({0, 1}, 2, {goal_kind::add_shard, 2}));
}

TEST(goal, a_goal_that_was_left_half_way_ends_the_same) {
  // Whoever goes on knows only the map: every prefix of the moves leads to the same end.
  std::mt19937 chance(4);
  for (int round = 0; round < 500; ++round) {
    const auto map = random_map(chance);
    const goal of{chance() % 2 == 0 ? goal_kind::rebalance : goal_kind::remove_shard, map[0]};
    std::size_t moves = 0, again = 0;
    const auto end = counts(follow(map, of, moves));
    auto half = map;
    for (std::size_t i = 0; i < moves / 2; ++i) {
      const auto next = next_of(half, of);
      ASSERT_TRUE(next);
      half = with(half, next->buckets, next->destination);
    }
    EXPECT_EQ(counts(follow(half, of, again)), end);
    EXPECT_EQ(again, moves - moves / 2);
  }
}

TEST(goal, names) {
  for (const auto kind : {goal_kind::add_shard, goal_kind::remove_shard, goal_kind::rebalance}) {
    EXPECT_EQ(goal_kind_of(name_of(kind)), kind);
  }
  EXPECT_FALSE(goal_kind_of("explode"));
  EXPECT_EQ(in_words({goal_kind::remove_shard, 2}), "remove-shard 2");
  EXPECT_EQ(in_words({goal_kind::rebalance, 2}), "rebalance");
}

}  // namespace
}  // namespace pgsled::moving
