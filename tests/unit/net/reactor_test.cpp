#include "common/net/reactor.hpp"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <thread>

#include "common/net/socket.hpp"

namespace pgsled::net {
namespace {

using std::chrono::milliseconds;

struct probe final : watcher {
  explicit probe(std::function<void(std::uint32_t)> f) : body(std::move(f)) {}
  void on_events(std::uint32_t events) override { body(events); }
  std::function<void(std::uint32_t)> body;
};

void put(int fd) { ASSERT_EQ(::write(fd, "x", 1), 1); }

TEST(reactor, reports_readiness_until_it_is_consumed) {
  reactor loop;
  auto [a, b] = stream_pair();
  put(b.get());
  int calls = 0;
  probe p([&, fd = a.get()](std::uint32_t events) {
    EXPECT_NE(events & EPOLLIN, 0u);
    if (++calls == 3) {  // level-triggered: nothing was read, so it comes again
      char c;
      EXPECT_EQ(::read(fd, &c, 1), 1);
      loop.stop();
    }
  });
  loop.add(a.get(), EPOLLIN, &p);
  loop.run();
  EXPECT_EQ(calls, 3);
  loop.remove(a.get());
}

TEST(reactor, drops_fetched_events_of_removed_descriptors) {
  reactor loop;
  auto [a, a_far] = stream_pair();
  auto [b, b_far] = stream_pair();
  put(a_far.get());
  put(b_far.get());
  int calls = 0;
  // Whichever comes first removes both: the other one's event is already fetched.
  auto once = [&, fa = a.get(), fb = b.get()](std::uint32_t) {
    ++calls;
    loop.remove(fa);
    loop.remove(fb);
    loop.defer([&] { loop.stop(); });
  };
  auto first = std::make_unique<probe>(once), second = std::make_unique<probe>(once);
  loop.add(a.get(), EPOLLIN, first.get());
  loop.add(b.get(), EPOLLIN, second.get());
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST(reactor, a_reused_descriptor_number_gets_no_events_of_its_predecessor) {
  reactor loop;
  auto [a, a_far] = stream_pair();
  auto [b, b_far] = stream_pair();
  put(a_far.get());
  put(b_far.get());
  int old_calls = 0, fresh_calls = 0;
  probe fresh([&](std::uint32_t) { ++fresh_calls; });
  unique_fd *pa = &a, *pb = &b;
  unique_fd replacement, replacement_far;
  probe *first = nullptr, *second = nullptr;
  auto body = [&](unique_fd* other) {
    ++old_calls;
    const int number = other->get();
    loop.remove(number);
    other->reset();
    auto ends = stream_pair();  // takes the lowest free number, which is the one just closed
    replacement = std::move(ends.first);
    replacement_far = std::move(ends.second);
    EXPECT_EQ(replacement.get(), number);
    loop.add(number, EPOLLIN, &fresh);
    loop.defer([&] { loop.stop(); });
  };
  probe p1([&](std::uint32_t) { body(pb); }), p2([&](std::uint32_t) { body(pa); });
  first = &p1, second = &p2;
  loop.add(a.get(), EPOLLIN, first);
  loop.add(b.get(), EPOLLIN, second);
  loop.run();
  EXPECT_EQ(old_calls, 1);
  EXPECT_EQ(fresh_calls, 0);
}

TEST(reactor, masks_interest_that_shrank_after_the_fetch) {
  reactor loop;
  auto [a, a_far] = stream_pair();
  auto [b, b_far] = stream_pair();
  int calls = 0;
  auto once = [&, fa = a.get(), fb = b.get()](watcher* self) {
    ++calls;
    loop.modify(fa, EPOLLIN, self);
    loop.modify(fb, EPOLLIN, self);
    loop.defer([&] { loop.stop(); });
  };
  probe p([&](std::uint32_t) { once(&p); });
  loop.add(a.get(), EPOLLOUT, &p);
  loop.add(b.get(), EPOLLOUT, &p);
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST(reactor, a_watch_is_what_was_said_last_and_ends_only_by_its_own) {
  reactor loop;
  auto [a, far] = stream_pair();
  put(far.get());
  int first_calls = 0, second_calls = 0;
  probe first([&](std::uint32_t) { ++first_calls; });
  probe second([&, fd = a.get()](std::uint32_t) {
    ++second_calls;
    loop.watch(fd, 0, &second);
  });
  loop.watch(a.get(), 0, &first);   // not watched, no descriptor at all: nothing happens
  loop.watch(-1, 0, &first);
  loop.watch(a.get(), EPOLLIN, &first);
  EXPECT_TRUE(loop.watches(a.get(), &first));
  loop.watch(a.get(), EPOLLIN, &second);
  EXPECT_FALSE(loop.watches(a.get(), &first));
  loop.watch(a.get(), 0, &first);   // it is the other's by now
  EXPECT_TRUE(loop.watches(a.get(), &second));
  loop.after(milliseconds(20), [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(first_calls, 0);
  EXPECT_EQ(second_calls, 1);
  EXPECT_FALSE(loop.watches(a.get(), &second));
}

TEST(reactor, timers_fire_in_order_and_cancelled_ones_do_not) {
  reactor loop;
  std::string order;
  loop.after(milliseconds(20), [&] { order += 'c'; loop.stop(); });
  const auto gone = loop.after(milliseconds(5), [&] { order += 'x'; });
  loop.after(milliseconds(10), [&] { order += 'b'; });
  const auto t = loop.now();
  loop.at(t, [&] { order += '1'; });
  loop.at(t, [&] { order += '2'; });
  loop.cancel(gone);
  loop.cancel(gone);
  loop.cancel(12345);
  loop.run();
  EXPECT_EQ(order, "12bc");
}

TEST(reactor, a_stale_id_does_not_cancel_a_younger_timer) {
  reactor loop;
  const auto old = loop.after(milliseconds(1), [] {});
  loop.cancel(old);
  bool fired = false;
  const auto young = loop.after(milliseconds(1), [&] { fired = true; loop.stop(); });
  EXPECT_NE(old, young);
  loop.cancel(old);
  loop.run();
  EXPECT_TRUE(fired);
}

TEST(reactor, many_timers_keep_their_order_through_random_cancels) {
  reactor loop;
  const auto base = loop.now();
  std::vector<reactor::timer_id> ids;
  std::vector<int> fired;
  std::uint32_t random = 7;
  std::vector<int> when(2000);
  for (int i = 0; i < 2000; ++i) {
    random = random * 1664525u + 1013904223u;
    when[static_cast<std::size_t>(i)] = static_cast<int>(random >> 20);
    ids.push_back(loop.at(base + std::chrono::microseconds(when[static_cast<std::size_t>(i)]),
                          [&, i] { fired.push_back(i); }));
  }
  for (std::size_t i = 0; i < ids.size(); i += 3) loop.cancel(ids[i]);
  loop.at(base + milliseconds(10), [&] { loop.stop(); });
  loop.run();
  ASSERT_EQ(fired.size(), 2000u - 667u);
  const auto time_of = [&](std::size_t i) { return when[static_cast<std::size_t>(fired[i])]; };
  for (std::size_t i = 1; i < fired.size(); ++i) EXPECT_LE(time_of(i - 1), time_of(i));
}

TEST(reactor, a_timer_that_sets_itself_again_does_not_starve_sockets) {
  reactor loop;
  auto [a, b] = stream_pair();
  int spins = 0;
  std::function<void()> again = [&] { ++spins; loop.after(duration::zero(), again); };
  loop.after(duration::zero(), again);
  probe p([&](std::uint32_t) { loop.stop(); });
  loop.add(a.get(), EPOLLIN, &p);
  put(b.get());
  loop.run();
  EXPECT_LT(spins, 10);
}

TEST(reactor, gathers_until_nothing_is_ready_but_not_for_ever) {
  reactor loop;
  int turns = 0;
  int gathered_at = -1;
  // Nothing else to do: at once.
  loop.gather([&] { gathered_at = turns; });
  loop.defer([&] { ++turns; });
  loop.after(std::chrono::milliseconds(1), [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(gathered_at, 1);
  // A socket that is always ready delays it for some turns only.
  auto [left, right] = stream_pair();
  ASSERT_EQ(::write(right.get(), "x", 1), 1);
  struct busy final : watcher {
    int seen = 0;
    void on_events(std::uint32_t) override { ++seen; }
  } always;
  loop.add(left.get(), EPOLLIN, &always);
  int seen = -1;
  loop.gather([&] {
    seen = always.seen;
    loop.stop();
  });
  loop.run();
  EXPECT_GT(seen, 1);
  EXPECT_LT(seen, 10);
  loop.remove(left.get());
}

TEST(reactor, deferred_work_that_defers_more_lets_events_through) {
  reactor loop;
  auto [a, b] = stream_pair();
  int rounds = 0;
  std::function<void()> more = [&] { ++rounds; loop.defer(more); };
  loop.defer(more);
  probe p([&](std::uint32_t) { loop.stop(); });
  loop.add(a.get(), EPOLLIN, &p);
  put(b.get());
  loop.run();
  EXPECT_LT(rounds, 10);
}

TEST(busy_poll, tries_less_often_the_more_is_in_vain) {
  busy_poll looks;
  const auto waits_until_due = [&] {
    int waits = 1;
    while (!looks.due()) ++waits;
    return waits;
  };
  EXPECT_EQ(waits_until_due(), 1);
  for (const int expected : {2, 4, 8, 16, 32, 64, 64, 64}) {
    looks.in_vain();
    EXPECT_EQ(waits_until_due(), expected);
  }
  // A find: at once again, and after the next in vain half as long as before.
  looks.found();
  EXPECT_EQ(waits_until_due(), 1);
  looks.in_vain();
  EXPECT_EQ(waits_until_due(), 64);
  for (int i = 0; i < 10; ++i) looks.found();
  looks.in_vain();
  EXPECT_EQ(waits_until_due(), 2);
  EXPECT_EQ(looks.tried(), 21u);
  EXPECT_EQ(looks.tried_in_vain(), 10u);
}

TEST(reactor, looks_before_it_sleeps_where_that_finds_something) {
  reactor loop;
  auto [a, b] = stream_pair();
  loop.look_before_sleep(std::chrono::seconds(5));
  probe p([&](std::uint32_t) { loop.stop(); });
  loop.add(a.get(), EPOLLIN, &p);
  std::thread other([fd = b.get()] { put(fd); });
  loop.run();
  other.join();
  EXPECT_LE(loop.looks().tried(), 1u);   // none: it was there at once
  loop.remove(a.get());
}

// Runs it through so many waits of a millisecond each.
void run_idly(reactor& loop, int turns) {
  std::function<void()> again = [&] {
    if (--turns == 0) return loop.stop();
    loop.after(milliseconds(1), again);
  };
  loop.after(milliseconds(1), again);
  loop.run();
}

TEST(reactor, looking_in_vain_leaves_off) {
  reactor loop;
  loop.look_before_sleep(std::chrono::microseconds(1));
  run_idly(loop, 500);
  EXPECT_GE(loop.looks().tried_in_vain(), 1u);
  EXPECT_LT(loop.looks().tried(), 100u);
  loop.look_before_sleep(std::chrono::microseconds(0));
  const auto before = loop.looks().tried();
  run_idly(loop, 100);
  EXPECT_EQ(loop.looks().tried(), before);
}

TEST(reactor, does_not_look_while_it_may_not) {
  reactor loop;
  loop.look_before_sleep(std::chrono::microseconds(1));
  loop.may_look(false);
  run_idly(loop, 10);
  EXPECT_EQ(loop.looks().tried(), 0u);
  loop.may_look(true);
  run_idly(loop, 10);
  EXPECT_GE(loop.looks().tried(), 1u);
}

TEST(reactor, post_and_stop_work_from_other_threads) {
  reactor loop;
  int sum = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) loop.post([&] { ++sum; });
    });
  std::thread stopper([&] {
    for (auto& t : threads) t.join();
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  stopper.join();
  EXPECT_EQ(sum, 4000);
  loop.stop();  // before run(): it returns at once
  loop.run();
}

TEST(reactor, now_stands_still_within_a_turn) {
  reactor loop;
  loop.defer([&] {
    const auto t = loop.now();
    std::this_thread::sleep_for(milliseconds(3));
    EXPECT_EQ(t, loop.now());
    loop.stop();
  });
  loop.run();
}

}  // namespace
}  // namespace pgsled::net
