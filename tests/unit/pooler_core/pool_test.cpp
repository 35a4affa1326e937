#include "services/pooler/pools/pool.hpp"

#include <gtest/gtest.h>

#include <set>

namespace pgsled::pooler {
namespace {

using enum connection_phase;
using lease::condition;
using std::chrono::seconds;

// Plays the driver and the holders: carries out actions, by a script or at once, and checks the
// promises after every event.
class bench {
 public:
  explicit bench(pool_limits limits) : p(limits, ids, 1, now) { look(); }

  lease_id ids = 0;
  time_point now{seconds(1'000)};
  pool p;
  bool obeys_budget = true;  // false while a lowered budget is being reached
  std::vector<lease_id> opening, checking_now, cleaning_now, closing_now, retired;
  std::map<holder_id, std::vector<std::pair<lease_id, lease::generation>>> held;
  std::map<holder_id, std::uint32_t> asked;   // recalled, not yet acknowledged or not
  std::map<holder_id, std::vector<pg_error>> failures;
  std::vector<holder_id> dropped, lend_order;
  bool last_close_cancels = false;

  // After every event.
  void look() {
    for (auto& a : p.take()) std::visit([&](auto& it) { carry_out(it); }, a);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < phases; ++i) sum += p.in_phase(static_cast<connection_phase>(i));
    ASSERT_EQ(sum, p.connections().size());
    ASSERT_EQ(sum + p.orphans(), p.used());
    if (obeys_budget) {
      ASSERT_LE(p.used(), p.limits().budget);
    }
    std::set<lease_id> in_hands;
    std::size_t count = 0;
    for (const auto& [who, leases] : held) {
      for (const auto& [id, generation] : leases) {
        ASSERT_TRUE(in_hands.insert(id).second) << "lease with two holders";
        ASSERT_TRUE(p.is_lent(id, generation, who));
        ++count;
      }
    }
    ASSERT_EQ(count, p.in_phase(lent));
    ASSERT_EQ(opening.size(), p.in_phase(connecting));
    ASSERT_EQ(closing_now.size(), p.in_phase(closing));
    ASSERT_EQ(checking_now.size(), p.in_phase(checking));
    ASSERT_EQ(cleaning_now.size(), p.in_phase(cleaning));
  }

  void demand(holder_id who, std::uint32_t n) { p.demand(who, n, now), look(); }
  void connect_all() {
    while (!opening.empty()) connect(opening.front());
  }
  void connect(lease_id id) {
    std::erase(opening, id);
    p.connected(id, now), look();
  }
  void fail(lease_id id) {
    std::erase(opening, id);
    p.connect_failed(id, pg_error{"28P01", "no", "", ""}, now), look();
  }
  void close_all() {
    while (!closing_now.empty()) {
      const auto id = closing_now.back();
      closing_now.pop_back();
      p.closed(id, now), look();
    }
  }
  void give_back(holder_id who, condition how = condition::clean) {
    ASSERT_FALSE(held[who].empty());
    const auto [id, generation] = held[who].front();
    held[who].erase(held[who].begin());
    ASSERT_TRUE(p.give_back(who, id, generation, how, now));
    look();
  }
  void ack(holder_id who) { p.recall_ack(who, now), look(); }
  void gone(holder_id who) {
    held.erase(who);
    p.holder_gone(who, now), look();
  }
  void pass(duration time) {
    const auto end = now + time;
    for (auto next = p.deadline(); next && *next <= end; next = p.deadline()) {
      now = std::max(now, *next);
      p.tick(now), look();
      ASSERT_TRUE(!p.deadline() || *p.deadline() > now) << "a tick that changes nothing";
    }
    now = end;
  }
  std::size_t has(holder_id who) { return held[who].size(); }

 private:
  void carry_out(open_connection& a) { opening.push_back(a.id); }
  void carry_out(check_connection& a) { checking_now.push_back(a.id); }
  void carry_out(clean_connection& a) { cleaning_now.push_back(a.id); }
  void carry_out(lend_connection& a) {
    held[a.holder].emplace_back(a.id, a.generation);
    lend_order.push_back(a.holder);
  }
  void carry_out(recall_leases& a) { asked[a.holder] += a.more; }
  void carry_out(retire_lease& a) { retired.push_back(a.id); }
  void carry_out(close_connection& a) {
    std::erase(opening, a.id);
    std::erase(checking_now, a.id);
    std::erase(cleaning_now, a.id);
    for (auto& [who, leases] : held) {
      std::erase_if(leases, [&](auto& l) { return l.first == a.id; });
    }
    closing_now.push_back(a.id);
    last_close_cancels = a.may_run;
  }
  void carry_out(tell_failure& a) { failures[a.holder].push_back(a.error); }
  void carry_out(drop_holder& a) { dropped.push_back(a.holder); }
};

pool_limits limits(std::uint32_t budget) {
  pool_limits l;
  l.budget = budget;
  return l;
}

TEST(pool, opens_what_is_waited_for_up_to_the_budget_and_lends_it) {
  bench b(limits(3));
  b.demand(1, 2);
  EXPECT_EQ(b.opening.size(), 2u);
  b.demand(1, 9);
  EXPECT_EQ(b.opening.size(), 3u);
  b.connect_all();
  EXPECT_EQ(b.has(1), 3u);
  EXPECT_EQ(b.p.waiting(), 6u);
}

TEST(pool, a_connection_given_back_is_lent_again_under_a_new_generation) {
  bench b(limits(1));
  b.demand(1, 1);
  b.connect_all();
  const auto [id, generation] = b.held[1][0];
  EXPECT_FALSE(b.p.give_back(1, id, generation + 1, condition::clean, b.now));
  EXPECT_FALSE(b.p.give_back(2, id, generation, condition::clean, b.now));
  EXPECT_FALSE(b.p.give_back(1, id + 1, generation, condition::clean, b.now));
  b.give_back(1);
  b.demand(2, 1);
  ASSERT_EQ(b.has(2), 1u);
  EXPECT_EQ(b.held[2][0].first, id);
  EXPECT_EQ(b.held[2][0].second, generation + 1);
}

TEST(pool, holders_are_served_in_turn_in_order_of_arrival) {
  bench b(limits(4));
  b.demand(2, 5);
  b.demand(1, 5);
  b.connect_all();
  EXPECT_EQ(b.lend_order, (std::vector<holder_id>{2, 1, 2, 1}));
}

TEST(pool, a_holder_above_its_allotment_is_recalled_for_one_below) {
  bench b(limits(10));
  b.demand(1, 20);
  b.connect_all();
  ASSERT_EQ(b.has(1), 10u);
  b.demand(2, 3);
  EXPECT_EQ(b.asked[1], 3u);
  b.ack(1);
  b.demand(2, 8);
  EXPECT_EQ(b.asked[1], 5u);  // never more than the allotment
  for (int i = 0; i < 5; ++i) b.give_back(1);
  EXPECT_EQ(b.has(1), 5u);
  EXPECT_EQ(b.has(2), 5u);
  b.ack(1);
  b.pass(seconds(1));
  EXPECT_EQ(b.asked[1], 5u);
  EXPECT_TRUE(b.dropped.empty());
}

TEST(pool, what_a_quiet_holder_has_goes_to_those_who_wait_after_a_while) {
  bench b(limits(4));
  b.demand(1, 4);
  b.connect_all();
  b.demand(2, 9);
  EXPECT_EQ(b.asked[1], 2u);
  b.ack(1);
  b.give_back(1);
  b.give_back(1);
  ASSERT_EQ(b.has(2), 2u);
  b.pass(milliseconds(50));
  EXPECT_EQ(b.asked[1], 2u);
  b.pass(milliseconds(60));
  EXPECT_EQ(b.asked[1], 3u);
  b.ack(1);
  b.give_back(1);
  b.pass(milliseconds(110));
  b.ack(1);
  b.give_back(1);
  EXPECT_EQ(b.has(2), 4u);
}

TEST(pool, a_recall_from_one_that_waits_itself_does_not_spare_a_quiet_holder) {
  bench b(limits(10));
  b.demand(2, 10);
  b.connect_all();
  ASSERT_EQ(b.has(2), 10u);
  b.demand(1, 5);
  ASSERT_EQ(b.asked[2], 5u);
  b.ack(2);
  for (int i = 0; i < 4; ++i) b.give_back(2);
  b.demand(1, 0);  // served otherwise; the fifth recall stays open: a long transaction
  ASSERT_EQ(b.has(1), 4u);
  b.demand(2, 1);
  b.pass(milliseconds(400));
  // Nobody of 1 answers: it is stopped, and loses all.
  EXPECT_GT(b.asked[1], 0u);
  b.pass(milliseconds(600));
  ASSERT_EQ(b.dropped, (std::vector<holder_id>{1}));
  b.gone(1);
  b.close_all();
  b.connect_all();
  EXPECT_EQ(b.has(2), 7u);
}

TEST(pool, one_with_long_transactions_does_not_spare_the_next_quiet_holder) {
  bench b(limits(9));
  for (const holder_id who : {1u, 2u, 3u}) b.demand(who, 3);
  b.connect_all();
  b.pass(milliseconds(200));
  b.demand(3, 1);  // above its allotment
  ASSERT_EQ(b.asked[1], 1u);
  EXPECT_EQ(b.asked[2], 0u);
  b.ack(1);  // and gives nothing: all it has is in transactions
  EXPECT_EQ(b.asked[2], 1u);
  b.give_back(2);
  b.ack(2);
  EXPECT_EQ(b.has(3), 4u);
  b.give_back(1);
  EXPECT_EQ(b.p.in_phase(idle), 1u);
}

TEST(pool, more_holders_than_connections_take_turns) {
  bench b(limits(1));
  b.demand(1, 100);
  b.connect_all();
  b.demand(2, 100);
  b.demand(3, 100);
  EXPECT_EQ(b.asked[1], 0u);
  b.pass(milliseconds(21));
  EXPECT_EQ(b.asked[1], 1u);
  b.ack(1);
  b.give_back(1);
  ASSERT_EQ(b.has(2), 1u);
  b.pass(milliseconds(21));
  b.ack(2);
  b.give_back(2);
  ASSERT_EQ(b.has(3), 1u);
  b.pass(milliseconds(21));
  b.ack(3);
  b.give_back(3);
  EXPECT_EQ(b.has(1), 1u);
}

TEST(pool, a_recall_that_is_not_acknowledged_drops_the_holder) {
  bench b(limits(2));
  b.demand(1, 2);
  b.connect_all();
  b.demand(2, 1);
  ASSERT_EQ(b.asked[1], 1u);
  b.pass(milliseconds(799));
  EXPECT_TRUE(b.dropped.empty());
  b.pass(milliseconds(2));
  ASSERT_EQ(b.dropped, (std::vector<holder_id>{1}));
  b.gone(1);
  EXPECT_EQ(b.closing_now.size(), 2u);
  EXPECT_TRUE(b.last_close_cancels);
  EXPECT_TRUE(b.opening.empty());  // closing ones still count
  b.close_all();
  b.connect_all();
  EXPECT_EQ(b.has(2), 1u);
}

TEST(pool, an_acknowledged_recall_may_take_for_ever) {
  bench b(limits(1));
  b.demand(1, 1);
  b.connect_all();
  b.demand(2, 1);
  b.pass(milliseconds(200));
  ASSERT_EQ(b.asked[1], 1u);
  b.ack(1);
  b.pass(seconds(3600));
  EXPECT_TRUE(b.dropped.empty());
  EXPECT_EQ(b.has(1), 1u);
}

TEST(pool, dirty_is_cleaned_broken_is_cancelled_and_closed) {
  bench b(limits(2));
  b.demand(1, 2);
  b.connect_all();
  b.give_back(1, condition::dirty);
  ASSERT_EQ(b.cleaning_now.size(), 1u);
  b.give_back(1, condition::broken);
  EXPECT_EQ(b.closing_now.size(), 1u);
  EXPECT_TRUE(b.last_close_cancels);
  const auto id = b.cleaning_now.back();
  b.cleaning_now.clear();
  b.p.checked(id, true, b.now), b.look();
  EXPECT_EQ(b.p.in_phase(idle), 1u);
}

TEST(pool, a_failure_is_told_after_the_attempts_and_followed_by_a_back_off) {
  auto l = limits(2);
  l.connect_attempts = 2;
  l.connect_attempt_delay = milliseconds(10);
  bench b(l);
  b.demand(1, 1);
  b.fail(b.opening[0]);
  EXPECT_TRUE(b.failures.empty());
  EXPECT_EQ(b.p.in_phase(retrying), 1u);
  b.pass(milliseconds(11));
  ASSERT_EQ(b.opening.size(), 1u);
  b.fail(b.opening[0]);
  ASSERT_EQ(b.failures[1].size(), 1u);
  EXPECT_EQ(b.failures[1][0].sqlstate, "28P01");
  EXPECT_EQ(b.p.used(), 0u);
  b.demand(1, 1);
  EXPECT_TRUE(b.opening.empty());
  b.pass(milliseconds(51));
  EXPECT_EQ(b.opening.size(), 1u);
  // The back-off grows to a second.
  for (int i = 0; i < 20; ++i) {
    while (!b.opening.empty()) b.fail(b.opening[0]);
    b.demand(1, 1);
    b.pass(milliseconds(1'100));
    EXPECT_FALSE(b.opening.empty());
  }
  b.connect_all();
  EXPECT_EQ(b.has(1), 1u);
}

TEST(pool, while_connections_live_a_failure_is_told_only_to_those_who_wait_long) {
  bench b(limits(3));
  b.demand(1, 2);
  b.connect_all();
  b.demand(2, 1);
  b.fail(b.opening[0]);
  EXPECT_TRUE(b.failures.empty());
  EXPECT_EQ(b.asked[1], 1u);  // the two that live are shared
  b.ack(1);
  for (int i = 0; i < 8; ++i) {
    b.pass(milliseconds(1'001));
    while (!b.opening.empty()) b.fail(b.opening[0]);
  }
  EXPECT_EQ(b.failures[2].size(), 1u);
  EXPECT_TRUE(b.failures[1].empty());
}

TEST(pool, idle_ones_close_down_to_the_minimum) {
  auto l = limits(5);
  l.min_size = 2;
  l.healthcheck_interval = milliseconds(0);
  bench b(l);
  EXPECT_EQ(b.opening.size(), 2u);
  b.connect_all();
  b.demand(1, 4);
  b.connect_all();
  for (int i = 0; i < 4; ++i) b.give_back(1);
  b.pass(seconds(59));
  EXPECT_EQ(b.p.in_phase(idle), 4u);
  b.pass(seconds(2));
  b.close_all();
  EXPECT_EQ(b.p.in_phase(idle), 2u);
  b.pass(seconds(600));
  EXPECT_EQ(b.p.in_phase(idle), 2u);
}

TEST(pool, lifetime_retires_the_lent_and_closes_the_idle) {
  auto l = limits(2);
  l.server_lifetime = seconds(100);
  l.server_lifetime_jitter = seconds(10);
  l.idle_timeout = l.healthcheck_interval = milliseconds(0);
  bench b(l);
  b.demand(1, 2);
  b.connect_all();
  b.give_back(1);
  b.pass(seconds(89));
  EXPECT_EQ(b.p.used(), 2u);
  b.pass(seconds(22));
  EXPECT_EQ(b.retired.size(), 1u);
  b.close_all();
  EXPECT_EQ(b.p.used(), 1u);
  b.give_back(1);
  b.close_all();
  EXPECT_EQ(b.p.used(), 0u);
}

TEST(pool, an_idle_one_is_checked_in_time_and_dropped_when_it_fails) {
  auto l = limits(1);
  l.idle_timeout = milliseconds(0);
  bench b(l);
  b.demand(1, 1);
  b.connect_all();
  b.give_back(1);
  b.pass(seconds(31));
  ASSERT_EQ(b.checking_now.size(), 1u);
  b.demand(1, 1);
  EXPECT_EQ(b.has(1), 0u);
  const auto id = b.checking_now.back();
  b.checking_now.clear();
  b.p.checked(id, false, b.now), b.look();
  b.close_all();
  b.connect_all();
  EXPECT_EQ(b.has(1), 1u);
}

TEST(pool, a_lowered_budget_closes_the_idle_and_recalls_the_lent) {
  bench b(limits(6));
  b.demand(1, 5);
  b.connect_all();
  b.give_back(1);
  b.obeys_budget = false;
  b.p.configure(limits(2), false, b.now), b.look();
  EXPECT_EQ(b.closing_now.size(), 1u);
  EXPECT_EQ(b.asked[1], 2u);
  b.ack(1);
  b.give_back(1);
  b.give_back(1);
  b.close_all();
  EXPECT_FALSE(b.p.over_budget());
  EXPECT_EQ(b.has(1), 2u);
}

TEST(pool, changed_credentials_replace_every_connection) {
  bench b(limits(3));
  b.demand(1, 1);
  b.connect_all();
  b.demand(1, 2);
  b.connect(b.opening[0]);
  b.demand(1, 0);
  b.give_back(1);
  b.p.configure(limits(3), true, b.now), b.look();
  EXPECT_EQ(b.retired.size(), 1u);
  EXPECT_EQ(b.closing_now.size(), 2u);  // the idle one and the one being opened
  b.close_all();
  b.give_back(1);
  EXPECT_EQ(b.closing_now.size(), 1u);
  b.demand(1, 1);
  b.connect_all();
  EXPECT_EQ(b.has(1), 1u);
}

TEST(pool, orphans_count_against_the_budget) {
  bench b(limits(3));
  b.p.set_orphans(1, 2, b.now), b.look();
  b.demand(2, 3);
  EXPECT_EQ(b.opening.size(), 1u);
  b.p.set_orphans(1, 1, b.now), b.look();
  EXPECT_EQ(b.opening.size(), 2u);
  b.gone(1);
  EXPECT_EQ(b.opening.size(), 3u);
}

TEST(pool, drained_takes_everything_back_and_lends_nothing) {
  bench b(limits(3));
  b.demand(1, 2);
  b.connect(b.opening[0]);
  b.p.drain(b.now), b.look();
  EXPECT_EQ(b.asked[1], 1u);
  b.demand(2, 1);
  b.ack(1);
  b.give_back(1);
  b.close_all();
  EXPECT_TRUE(b.p.empty());
  EXPECT_FALSE(b.p.deadline().has_value());
}

// The same story fails at step 1, 2, 3 …; afterwards the pool must still serve.
TEST(pool, recovers_from_a_failure_at_every_step) {
  for (int failing = 0; failing < 12; ++failing) {
    bench b(limits(2));
    int step = 0;
    const auto fails = [&] { return step++ == failing; };
    b.demand(1, 2);
    for (auto id : std::vector(b.opening)) fails() ? b.fail(id) : b.connect(id);
    b.demand(2, 1);
    if (fails()) b.gone(1);
    b.pass(milliseconds(200));
    if (b.asked[1] > 0 && fails()) {
      b.pass(seconds(1));
      for (auto who : std::vector(b.dropped)) b.gone(who);
    } else {
      b.ack(1);
    }
    while (b.has(1) > 0) b.give_back(1, fails() ? condition::broken : condition::dirty);
    for (auto id : std::vector(b.cleaning_now)) {
      std::erase(b.cleaning_now, id);
      b.p.checked(id, !fails(), b.now), b.look();
    }
    if (fails() && b.p.in_phase(idle) > 0) {
      for (const auto& c : b.p.connections()) {
        if (c.phase == idle) b.p.lost(c.id, b.now), b.look();
      }
    }
    b.close_all();
    b.dropped.clear();
    b.demand(2, 2);
    b.pass(seconds(2));
    b.connect_all();
    EXPECT_GE(b.has(2), 1u) << "failing at step " << failing;
  }
}

class random_source {
 public:
  explicit random_source(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t below(std::uint64_t n) {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_ % n;
  }

 private:
  std::uint64_t state_;
};

void random_step(bench& b, random_source& random) {
  const holder_id who = 1 + random.below(4);
  switch (random.below(14)) {
    case 0:
    case 1:
    case 2: b.demand(who, static_cast<std::uint32_t>(random.below(6))); break;
    case 3:
    case 4:
      if (!b.opening.empty()) b.connect(b.opening[random.below(b.opening.size())]);
      break;
    case 5:
      if (!b.opening.empty()) b.fail(b.opening[random.below(b.opening.size())]);
      break;
    case 6:
    case 7:
      if (b.has(who) > 0) b.give_back(who, static_cast<condition>(random.below(3)));
      break;
    case 8: b.ack(who); break;
    case 9: b.close_all(); break;
    case 10: {
      auto& list = random.below(2) == 0 ? b.checking_now : b.cleaning_now;
      if (list.empty()) break;
      const auto id = list.back();
      list.pop_back();
      b.p.checked(id, random.below(4) != 0, b.now), b.look();
      break;
    }
    case 11: b.pass(milliseconds(random.below(100))); break;
    case 12:
      if (random.below(20) == 0) b.gone(who);
      for (auto dead : std::vector(b.dropped)) b.gone(dead);
      b.dropped.clear();
      break;
    case 13: {
      if (random.below(30) != 0) break;
      auto next = limits(1 + static_cast<std::uint32_t>(random.below(8)));
      next.min_size = static_cast<std::uint32_t>(random.below(next.budget));
      b.obeys_budget = false;
      b.p.configure(next, random.below(2) == 0, b.now), b.look();
      break;
    }
  }
}

TEST(pool, keeps_its_promises_in_random_schedules) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    random_source random(seed);
    bench b(limits(1 + static_cast<std::uint32_t>(random.below(6))));
    for (int i = 0; i < 2'000; ++i) {
      random_step(b, random);
      if (!b.p.over_budget()) b.obeys_budget = true;
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed << " step " << i;
    }
    // Whatever happened: with patience and good will everybody who waits is served.
    for (holder_id who = 1; who <= 4; ++who) b.gone(who);
    b.close_all();
    b.demand(9, 1);
    for (int i = 0; i < 10 && b.has(9) == 0; ++i) {
      b.pass(seconds(2));
      for (auto* list : {&b.checking_now, &b.cleaning_now}) {
        while (!list->empty()) {
          const auto id = list->back();
          list->pop_back();
          b.p.checked(id, true, b.now), b.look();
        }
      }
      b.close_all();
      b.connect_all();
    }
    EXPECT_EQ(b.has(9), 1u);
  }
}

}  // namespace
}  // namespace pgsled::pooler
