#include "services/cli/supervisor.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace pgsled::cli {
namespace {

using role = supervisor::role;
using what = supervisor::what;
using actions = supervisor::actions;
using ms = std::chrono::milliseconds;

struct suite {
  supervisor::time_point now{};
  supervisor machine{{role::router, role::pooler, role::replicator, role::frontend,
                      role::frontend}};
  suite() { machine.begin(now); }
  // Runs the clock to the next deadline and returns how long that took.
  ms to_next(actions* got = nullptr) {
    const auto due = machine.next();
    if (!due) return ms{-1};
    const auto waited = std::chrono::duration_cast<ms>(*due - now);
    now = *due;
    auto done = machine.tick(now);
    if (got != nullptr) *got = std::move(done);
    return waited;
  }
};

TEST(supervisor, starts_all_in_order) {
  supervisor machine({role::router, role::pooler});
  EXPECT_EQ(machine.begin({}), (actions{{what::start, 0}, {what::start, 1}}));
  EXPECT_EQ(machine.next(), std::nullopt);
  EXPECT_FALSE(machine.finished());
}

TEST(supervisor, first_restart_at_once_then_longer_and_longer) {
  suite s;
  actions got;
  for (const int expected : {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000}) {
    EXPECT_EQ(s.machine.ended(3, s.now), actions{});
    EXPECT_EQ(s.machine.delay_of(3), ms{expected});
    EXPECT_EQ(s.to_next(&got), ms{expected});
    EXPECT_EQ(got, (actions{{what::start, 3}}));
    EXPECT_EQ(s.machine.next(), std::nullopt);
  }
}

TEST(supervisor, ten_seconds_up_are_forgiven) {
  suite s;
  for (int i = 0; i < 4; ++i) {
    s.machine.ended(1, s.now);
    s.to_next();
  }
  s.now += ms{9999};
  s.machine.ended(1, s.now);
  EXPECT_EQ(s.to_next(), ms{800});
  s.now += ms{10000};
  s.machine.ended(1, s.now);
  EXPECT_EQ(s.to_next(), ms{0});
  s.machine.ended(1, s.now);
  EXPECT_EQ(s.to_next(), ms{100});
}

TEST(supervisor, members_wait_each_for_itself) {
  suite s;
  s.machine.ended(0, s.now);
  s.to_next();
  s.machine.ended(0, s.now);  // due in 100 ms
  s.machine.ended(1, s.now);  // due now
  EXPECT_EQ(s.machine.tick(s.now), (actions{{what::start, 1}}));
  EXPECT_EQ(s.to_next(), ms{100});
}

TEST(supervisor, stops_in_order) {
  suite s;
  EXPECT_EQ(s.machine.stop(s.now), (actions{{what::terminate, 3}, {what::terminate, 4}}));
  EXPECT_EQ(s.machine.ended(3, s.now), actions{});
  EXPECT_EQ(s.machine.ended(4, s.now), (actions{{what::terminate, 1}}));
  EXPECT_EQ(s.machine.ended(1, s.now), (actions{{what::terminate, 2}}));
  EXPECT_FALSE(s.machine.finished());
  EXPECT_EQ(s.machine.ended(2, s.now), (actions{{what::terminate, 0}}));
  EXPECT_EQ(s.machine.ended(0, s.now), actions{});
  EXPECT_TRUE(s.machine.finished());
  EXPECT_EQ(s.machine.next(), std::nullopt);
}

TEST(supervisor, what_does_not_stop_is_killed_within_ten_seconds) {
  suite s;
  s.machine.stop(s.now);
  actions got;
  EXPECT_EQ(s.to_next(&got), ms{7000});
  EXPECT_EQ(got, (actions{{what::kill, 3}, {what::kill, 4}, {what::terminate, 1}}));
  s.machine.ended(3, s.now);
  s.machine.ended(4, s.now);
  EXPECT_EQ(s.to_next(&got), ms{1500});
  EXPECT_EQ(got, (actions{{what::kill, 1}, {what::terminate, 2}}));
  EXPECT_EQ(s.to_next(&got), ms{500});
  EXPECT_EQ(got, (actions{{what::kill, 2}, {what::terminate, 0}}));
  EXPECT_EQ(s.to_next(&got), ms{500});
  EXPECT_EQ(got, (actions{{what::kill, 0}}));
  EXPECT_EQ(s.machine.next(), std::nullopt);
  for (const std::size_t i : {0u, 1u, 2u}) s.machine.ended(i, s.now);
  EXPECT_TRUE(s.machine.finished());
}

TEST(supervisor, a_stop_cancels_restarts_and_skips_what_is_not_there) {
  suite s;
  s.machine.ended(3, s.now);
  s.machine.ended(4, s.now);
  EXPECT_EQ(s.machine.stop(s.now), (actions{{what::terminate, 1}}));
  EXPECT_EQ(s.machine.tick(s.now + ms{10}), actions{});
  s.machine.ended(2, s.now);  // ended on its own meanwhile
  EXPECT_EQ(s.machine.ended(1, s.now), (actions{{what::terminate, 0}}));
}

TEST(supervisor, a_router_that_ends_well_ends_the_suite) {
  suite s;
  EXPECT_EQ(s.machine.ended(3, s.now, true), actions{});  // anybody else: started again
  EXPECT_FALSE(s.machine.stopping());
  EXPECT_EQ(s.machine.ended(0, s.now, true), (actions{{what::terminate, 4}}));
  EXPECT_TRUE(s.machine.stopping());
  EXPECT_EQ(s.machine.tick(s.now), actions{});
  EXPECT_EQ(s.machine.ended(4, s.now, true), (actions{{what::terminate, 1}}));
  EXPECT_EQ(s.machine.ended(1, s.now, true), (actions{{what::terminate, 2}}));
  EXPECT_EQ(s.machine.ended(2, s.now, true), actions{});
  EXPECT_TRUE(s.machine.finished());
}

TEST(supervisor, nothing_left_to_stop) {
  suite s;
  for (std::size_t i = 0; i < 5; ++i) s.machine.ended(i, s.now);
  EXPECT_EQ(s.machine.stop(s.now), actions{});
  EXPECT_TRUE(s.machine.finished());
}

TEST(supervisor, a_second_stop_kills) {
  suite s;
  s.machine.stop(s.now);
  s.machine.ended(3, s.now);
  EXPECT_EQ(s.machine.stop(s.now),
            (actions{{what::kill, 0}, {what::kill, 1}, {what::kill, 2}, {what::kill, 4}}));
}

TEST(supervisor, reload_reaches_the_router_only) {
  suite s;
  EXPECT_EQ(s.machine.reload(), (actions{{what::reload, 0}}));
  s.machine.ended(0, s.now);
  EXPECT_EQ(s.machine.reload(), actions{});
  s.to_next();
  s.machine.stop(s.now);
  EXPECT_EQ(s.machine.reload(), actions{});
}

TEST(supervisor, an_end_that_is_reported_twice_counts_once) {
  suite s;
  s.machine.ended(1, s.now);
  s.machine.ended(1, s.now);
  EXPECT_EQ(s.to_next(), ms{0});
  s.machine.ended(1, s.now);
  EXPECT_EQ(s.to_next(), ms{100});
}

// Whatever happens: a process is started only when it is down, signalled only when it is up, and
// all is over 10 s after a stop.
TEST(supervisor, holds_its_promises_under_random_events) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    const std::vector<role> roles = {role::router, role::pooler, role::frontend, role::frontend,
                                     role::replicator};
    supervisor machine(roles);
    supervisor::time_point now{}, stopped{};
    std::set<std::size_t> up, dying;
    const auto apply = [&](const actions& list) {
      for (const auto& [kind, member] : list) {
        if (kind == what::start) {
          ASSERT_TRUE(up.insert(member).second);
          ASSERT_FALSE(machine.stopping());
        } else {
          ASSERT_TRUE(up.count(member));
          if (kind == what::kill) dying.insert(member);
        }
      }
    };
    apply(machine.begin(now));
    for (int step = 0; step < 200 && !machine.finished(); ++step) {
      now += ms{random() % 300};
      if (random() % 100 == 0 && !machine.stopping()) {
        stopped = now;
        apply(machine.stop(now));
      }
      if (random() % 4 == 0) apply(machine.tick(now));
      const auto victim = random() % roles.size();
      if (up.count(victim) && random() % 8 == 0) {
        up.erase(victim);
        dying.erase(victim);
        apply(machine.ended(victim, now));
      }
    }
    if (!machine.stopping()) {
      stopped = now;
      apply(machine.stop(now));
    }
    const auto late = now - stopped;  // how much of the time random steps have used
    while (!machine.finished()) {
      while (!dying.empty()) {
        const auto victim = *dying.begin();
        dying.erase(victim);
        up.erase(victim);
        apply(machine.ended(victim, now));
      }
      if (machine.finished()) break;
      ASSERT_TRUE(machine.next());
      now = std::max(now, *machine.next());
      apply(machine.tick(now));
    }
    EXPECT_TRUE(up.empty());
    EXPECT_LE(now - stopped, std::max<supervisor::time_point::duration>(late, ms{9500}));
  }
}

}  // namespace
}  // namespace pgsled::cli
