#include "common/commit/deadlock.hpp"

#include <gtest/gtest.h>

#include <random>

namespace pgsled::commit {
namespace {

constexpr mark a{1u << 20, 100}, b{2u << 20, 200}, c{3u << 20, 300};

waits_for on(std::uint32_t shard, mark waiter, mark blocker, std::uint32_t waiter_pid = 0,
             std::uint32_t blocker_pid = 0) {
  return {shard, waiter, blocker, waiter_pid, blocker_pid};
}

TEST(deadlock, the_youngest_of_a_circle_over_shards_is_the_victim) {
  EXPECT_EQ(deadlock_victims({on(0, a, b), on(1, b, a)}), std::vector{b});
  EXPECT_EQ(deadlock_victims({on(0, a, b), on(1, b, c), on(2, c, a)}), std::vector{c});
}

TEST(deadlock, a_queue_is_none) {
  EXPECT_TRUE(deadlock_victims({}).empty());
  EXPECT_TRUE(deadlock_victims({on(0, a, b), on(1, b, c), on(1, a, c)}).empty());
}

TEST(deadlock, a_circle_on_one_shard_is_the_servers_own) {
  EXPECT_TRUE(deadlock_victims({on(1, a, b), on(1, b, a)}).empty());
}

TEST(deadlock, a_circle_may_pass_through_transactions_of_one_shard) {
  const mark none;
  EXPECT_EQ(deadlock_victims({on(0, a, none, 0, 77), on(0, none, b, 77, 0), on(1, b, a)}),
            std::vector{b});
  // The same pid on another shard is somebody else.
  EXPECT_TRUE(
      deadlock_victims({on(0, a, none, 0, 77), on(1, none, b, 77, 0), on(1, b, a)}).empty());
}

TEST(deadlock, one_victim_for_each_circle) {
  const mark d{4u << 20, 50};
  EXPECT_EQ(deadlock_victims({on(0, a, b), on(1, b, a), on(0, c, d), on(1, d, c)}),
            (std::vector{b, c}));
}

TEST(deadlock, who_waits_behind_a_circle_is_not_in_it) {
  EXPECT_EQ(deadlock_victims({on(0, a, b), on(1, b, a), on(0, c, a)}), std::vector{b});
}

TEST(deadlock, times_that_have_wrapped) {
  const mark old{1u << 20, 0x7ffffff0}, young{2u << 20, 5};
  EXPECT_EQ(deadlock_victims({on(0, old, young), on(1, young, old)}), std::vector{young});
}

// Cancelling victims until there are none leaves no circle, whatever the graph.
TEST(deadlock, nothing_waits_for_ever) {
  std::mt19937 engine(7);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(engine() % n); };
  for (int round = 0; round < 300; ++round) {
    std::vector<waits_for> all;
    for (int i = 0; i < 12; ++i) {
      const mark from{(1 + below(6)) << 20, 1 + below(9)}, to{(1 + below(6)) << 20, 1 + below(9)};
      all.push_back(on(below(3), from, to));
    }
    for (int steps = 0;; ++steps) {
      ASSERT_LT(steps, 20);
      const auto victims = deadlock_victims(all);
      if (victims.empty()) break;
      for (const mark& one : victims) {
        std::erase_if(all, [&](const auto& w) { return w.waiter == one || w.blocker == one; });
      }
    }
  }
}

}  // namespace
}  // namespace pgsled::commit
