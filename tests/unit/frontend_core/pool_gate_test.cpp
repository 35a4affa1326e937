// Who of several transactions that wait for each other's leases gives up, and when.

#include "services/frontend/leases/pool_gate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace pgsled::frontend {
namespace {

using namespace std::chrono_literals;

// Pools are letters; one that waits since `since` ms.
struct scene {
  std::map<const void*, std::size_t> leases;
  std::vector<gated> all;
  std::string pools = "abcdefgh";

  const void* pool(char name) { return &pools[pools.find(name)]; }
  scene& has(char name, std::size_t count) {
    leases[pool(name)] = count;
    return *this;
  }
  scene& waits(char wants, const std::string& holds, int since = 0, bool wanted = false) {
    gated one;
    one.waits_for = wants == '-' ? nullptr : pool(wants);
    one.since = net::time_point(std::chrono::milliseconds(since));
    for (const char name : holds) one.holds.push_back(pool(name));
    one.wanted = wanted;
    all.push_back(one);
    return *this;
  }
  // Its place; -1: nobody.
  int after(int ms) const {
    const auto who = who_gives_up(all, leases, net::time_point(std::chrono::milliseconds(ms)));
    return who ? static_cast<int>(*who) : -1;
  }
};

TEST(pool_gate, a_circle_of_two_pools_ends_with_the_younger) {
  scene s;
  s.has('a', 1).has('b', 1).waits('b', "a", 10).waits('a', "b", 20);
  EXPECT_EQ(s.after(10 + 149), -1) << "nobody has waited long enough";
  EXPECT_EQ(s.after(20 + 150), 1);
}

TEST(pool_gate, the_elder_gives_up_when_only_it_has_waited_long_enough) {
  scene s;
  s.has('a', 1).has('b', 1).waits('b', "a", 0).waits('a', "b", 100);
  EXPECT_EQ(s.after(149), -1);
  EXPECT_EQ(s.after(150), 0) << "nobody else may: the circle ends";
}

TEST(pool_gate, one_lease_in_other_hands_is_enough_to_wait_on) {
  scene s;
  s.has('a', 2).has('b', 1).waits('b', "a").waits('a', "b");
  EXPECT_EQ(s.after(60'000), -1) << "whoever has the other lease of a gives it back";
  scene both;
  both.has('a', 2).has('b', 1).waits('b', "a").waits('b', "a", 5).waits('a', "b", 3);
  EXPECT_EQ(both.after(60'000), 1) << "it is one of them";
}

TEST(pool_gate, one_that_waits_for_nothing_any_more_goes_on) {
  scene s;
  s.has('a', 1).has('b', 1).waits('b', "a").waits('-', "b", 0, true);
  EXPECT_EQ(s.after(60'000), -1);
}

TEST(pool_gate, who_waits_behind_one_that_can_go_on_is_not_stuck) {
  scene s;   // c has a lease in other hands; then b, then a
  s.has('a', 1).has('b', 1).has('c', 1).waits('b', "a").waits('c', "b");
  EXPECT_EQ(s.after(60'000), -1);
  s.waits('a', "c");
  EXPECT_NE(s.after(60'000), -1) << "a circle of three";
}

TEST(pool_gate, a_pool_that_is_elsewhere_takes_longer_and_only_if_others_want_what_is_here) {
  scene s;
  s.has('a', 1).waits('b', "a", 0, false);
  EXPECT_EQ(s.after(60'000), -1) << "nobody wants a";
  scene wanted;
  wanted.has('a', 1).waits('b', "a", 0, true);
  EXPECT_EQ(wanted.after(999), -1);
  EXPECT_EQ(wanted.after(1000), 0);
}

// With any number of them: whoever gives up is in a set that nobody outside can help; and where
// there is a circle whose members have all waited, somebody does. Each gives up in turn, until the
// rest can go on.
TEST(pool_gate, random_scenes_end_with_somebody_who_can_go_on) {
  std::mt19937 chance(7);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(chance() % n); };
  for (int round = 0; round < 3000; ++round) {
    scene s;
    const std::size_t pools = 2 + below(3);
    std::map<const void*, std::size_t> held;
    for (std::size_t i = 0, n = 1 + below(5); i < n; ++i) {
      const std::size_t mine = below(pools);
      const std::size_t other = (mine + 1 + below(pools - 1)) % pools;
      s.waits(s.pools[other], std::string(1, s.pools[mine]), static_cast<int>(below(50)));
      ++held[s.pool(s.pools[mine])];
    }
    for (std::size_t i = 0; i < pools; ++i) {
      const auto* pool = s.pool(s.pools[i]);
      s.leases[pool] = std::max<std::size_t>(held[pool] + below(2), 1);   // some in other hands
    }
    for (int who = s.after(10'000); who >= 0; who = s.after(10'000)) {
      const gated given_up = s.all[static_cast<std::size_t>(who)];
      for (const gated& one : s.all) {
        if (one.waits_for != given_up.waits_for) continue;
        EXPECT_EQ(held[one.waits_for], s.leases[one.waits_for]) << "one in other hands was left";
      }
      for (const void* pool : given_up.holds) --held[pool];
      s.all.erase(s.all.begin() + who);
    }
    // Of those that are left each can be reached by a free lease.
    std::set<const void*> free;
    for (const auto& [pool, count] : s.leases) {
      if (held[pool] < count) free.insert(pool);
    }
    auto left = s.all;
    while (std::erase_if(left, [&](const gated& one) {
             if (!free.contains(one.waits_for)) return false;
             free.insert(one.holds.front());
             return true;
           }) > 0) {
    }
    EXPECT_TRUE(left.empty()) << "round " << round;
  }
}

}  // namespace
}  // namespace pgsled::frontend
