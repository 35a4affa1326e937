#include "services/router/control/budgets.hpp"

#include <gtest/gtest.h>

#include <random>

namespace pgsled::router {
namespace {

TEST(budgets, division_gives_floor_and_a_rotating_remainder) {
  EXPECT_EQ(divide(10, 3, 0), (std::vector<std::uint32_t>{4, 3, 3}));
  EXPECT_EQ(divide(10, 3, 1), (std::vector<std::uint32_t>{3, 4, 3}));
  EXPECT_EQ(divide(10, 3, 4), (std::vector<std::uint32_t>{3, 4, 3}));
  EXPECT_EQ(divide(1, 2, 1), (std::vector<std::uint32_t>{0, 1}));
  EXPECT_TRUE(divide(10, 0, 1).empty());
}

TEST(budgets, a_joining_pooler_waits_for_the_others_to_shrink) {
  budgets ledger;
  EXPECT_EQ(ledger.assign({{6, 10, 4, {"a"}}}, 1)[6]["a"], (pool_share{10, 4}));
  ledger.acknowledged("a", 1);
  auto given = ledger.assign({{6, 10, 4, {"a", "b"}}}, 2);
  EXPECT_EQ(given[6]["a"], (pool_share{5, 2}));
  EXPECT_EQ(given[6]["b"], (pool_share{0, 0})) << "a may still use all ten";
  EXPECT_TRUE(ledger.anything_pending());
  EXPECT_TRUE(ledger.acknowledged("a", 2));
  given = ledger.assign({{6, 10, 4, {"a", "b"}}}, 3);
  EXPECT_EQ(given[6]["b"], (pool_share{5, 2}));
  EXPECT_FALSE(ledger.anything_pending());
}

TEST(budgets, a_pooler_that_leaves_frees_its_share_at_once_when_gone_and_after_ack_when_draining) {
  budgets ledger;
  ledger.assign({{6, 10, 0, {"a", "b"}}}, 1);
  ledger.acknowledged("a", 1);
  ledger.acknowledged("b", 1);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 2)[6]["a"].budget, 5u) << "b drains";
  EXPECT_TRUE(ledger.acknowledged("b", 2));
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 3)[6]["a"].budget, 10u);

  budgets other;
  other.assign({{6, 10, 0, {"a", "b"}}}, 1);
  other.dropped("b");
  EXPECT_EQ(other.assign({{6, 10, 0, {"a"}}}, 2)[6]["a"].budget, 10u);
}

TEST(budgets, a_share_that_never_was_acknowledged_counts_in_full) {
  budgets ledger;
  ledger.assign({{6, 10, 0, {"a"}}}, 1);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 2)[6]["b"].budget, 0u);
  ledger.acknowledged("a", 1);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 3)[6]["b"].budget, 0u);
  ledger.acknowledged("a", 2);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 4)[6]["b"].budget, 5u);
}

TEST(budgets, a_reload_grows_at_once_and_shrinks_at_once) {
  budgets ledger;
  ledger.assign({{6, 10, 0, {"a"}}}, 1);
  EXPECT_EQ(ledger.assign({{6, 20, 0, {"a"}}}, 2)[6]["a"].budget, 20u);
  EXPECT_EQ(ledger.assign({{6, 5, 0, {"a"}}}, 3)[6]["a"].budget, 5u);
}

TEST(budgets, survivors_of_a_router_keep_what_they_have) {
  budgets ledger;
  ledger.hold_growth(true);
  ledger.adopt("a", {{6, 5}});
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 1)[6]["a"].budget, 5u) << "b may be on its way";
  ledger.adopt("b", {{6, 5}});
  auto given = ledger.assign({{6, 10, 0, {"a", "b"}}}, 2);
  EXPECT_EQ(given[6]["a"].budget, 5u);
  EXPECT_EQ(given[6]["b"].budget, 5u);
  ledger.dropped("b");
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 3)[6]["a"].budget, 5u);
  EXPECT_TRUE(ledger.anything_pending());
  ledger.hold_growth(false);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 4)[6]["a"].budget, 10u);
}

TEST(budgets, what_is_still_in_transactions_is_not_handed_on) {
  budgets ledger;
  ledger.assign({{6, 10, 0, {"a"}}}, 1);
  ledger.acknowledged("a", 1);
  ledger.assign({{6, 10, 0, {"a", "b"}}}, 2);
  ledger.over("a", {{6, 8}});
  EXPECT_TRUE(ledger.acknowledged("a", 2));
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 3)[6]["b"].budget, 2u);
  EXPECT_TRUE(ledger.over("a", {{6, 7}}));
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 4)[6]["b"].budget, 3u);
  EXPECT_TRUE(ledger.over("a", {}));
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "b"}}}, 5)[6]["b"].budget, 5u);
}

TEST(budgets, what_a_draining_pooler_still_has_counts_until_it_is_gone) {
  budgets ledger;
  ledger.assign({{6, 10, 0, {"a", "b"}}}, 1);
  ledger.acknowledged("a", 1);
  ledger.acknowledged("b", 1);
  ledger.assign({{6, 10, 0, {"a"}}}, 2);
  ledger.over("b", {{6, 4}});
  ledger.acknowledged("b", 2);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 3)[6]["a"].budget, 6u);
  ledger.dropped("b");
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a"}}}, 4)[6]["a"].budget, 10u);
}

TEST(budgets, a_newcomer_gets_nothing_while_a_survivor_may_be_on_its_way) {
  budgets ledger;
  ledger.hold_growth(true);
  ledger.adopt("a", {{6, 5}});
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "c"}}}, 1)[6]["c"].budget, 0u) << "b has the rest";
  ledger.hold_growth(false);
  EXPECT_EQ(ledger.assign({{6, 10, 0, {"a", "c"}}}, 2)[6]["c"].budget, 5u);
}

// Whatever comes in whatever order: what poolers may use never exceeds the size, and once all is
// acknowledged every connection of the pool is somebody's.
TEST(budgets, never_more_than_the_size_and_in_the_end_all_of_it) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    budgets ledger;
    std::vector<std::string> names{"a", "b", "c", "d"};
    std::map<std::string, bool> live;
    std::map<std::string, std::vector<std::pair<std::uint64_t, std::uint32_t>>> sent;
    std::map<std::string, std::uint32_t> in_force;
    const auto size = static_cast<std::uint32_t>(random() % 12);
    std::uint64_t epoch = 0;
    const auto assign = [&] {
      pool_size wanted{7, size, 0, {}};
      for (const auto& name : names) {
        if (live[name]) wanted.poolers.push_back(name);
      }
      auto given = ledger.assign({wanted}, ++epoch)[7];
      for (const auto& name : names) {
        if (in_force.contains(name) || given.contains(name)) {
          sent[name].emplace_back(epoch, given.contains(name) ? given[name].budget : 0);
          in_force.try_emplace(name, 0);
        }
      }
      std::uint32_t total = 0;
      for (const auto& [name, now] : in_force) {
        std::uint32_t most = now;
        for (const auto& [at, value] : sent[name]) most = std::max(most, value);
        total += most;
      }
      ASSERT_LE(total, size) << "seed " << seed;
    };
    const auto acknowledge_one = [&](const std::string& name) {
      if (sent[name].empty()) return;
      const auto [at, value] = sent[name].front();
      sent[name].erase(sent[name].begin());
      in_force[name] = value;
      ledger.acknowledged(name, at);
    };
    for (int step = 0; step < 60; ++step) {
      const std::string& name = names[random() % names.size()];
      switch (random() % 4) {
        case 0: live[name] = true; break;
        case 1: live[name] = false; break;  // drains
        case 2:
          live[name] = false;
          sent.erase(name);
          in_force.erase(name);
          ledger.dropped(name);
          break;
        default: acknowledge_one(name);
      }
      assign();
    }
    live["a"] = true;
    for (int round = 0; round < 8; ++round) {
      assign();
      for (const auto& name : names) {
        while (!sent[name].empty()) acknowledge_one(name);
      }
    }
    std::uint32_t total = 0;
    for (const auto& [name, now] : in_force) total += now;
    EXPECT_EQ(total, size) << "seed " << seed;
  }
}

}  // namespace
}  // namespace pgsled::router
