#include "common/moving/cluster_job.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace pgsled::moving {
namespace {

using testing::ElementsAre;
using step = cluster_step;
using stored = cluster_stored;
using wish = cluster_job::wish;
using steps = std::vector<std::string>;

const pg_error no{"XX000", "no", {}, {}};

// Runs `it` to its end; `play` says how the n-th step goes. The names of the steps.
steps run(cluster_job& it, const std::function<void(cluster_job&, step, int)>& play) {
  steps trace;
  for (int n = 0; n < 3000; ++n) {
    const auto next = it.next();
    if (!next) return trace;
    trace.emplace_back(name_of(next->what));
    play(it, next->what, n);
  }
  ADD_FAILURE() << "it has no end";
  return trace;
}

// As it goes when nothing fails. In reverse `want` is asked for, and finish when that has failed.
struct world {
  wish want = wish::finish;
  stored found = stored::nothing;
  bool flip_happens = false;   // one whose outcome was not known
  int asked = 0;

  void well(cluster_job& it, step what) {
    if (what == step::take) return it.took(found);
    if (what == step::settle) {
      if (!flip_happens) return it.settled(it.past_flip() ? stored::flipped : stored::moving);
      return it.settled(it.on_the_way_back() ? stored::returned : stored::flipped);
    }
    if (what == step::reverse) return it.told(asked++ == 0 ? want : wish::finish);
    it.succeeded();
  }
};

// Whatever fails, and however often.
void check(const steps& trace, const cluster_job& it) {
  int flips = 0;
  bool held = false;
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const auto& now = trace[i];
    if (now == "fence") held = true;
    if (now == "flip") {
      ASSERT_EQ(trace[i - 1], "verify");
      ASSERT_EQ(trace[i - 2], "fence");
    }
    if (now == "settle") {
      ASSERT_TRUE(trace[i - 1] == "flip" || trace[i - 1] == "settle") << "no lift before it";
    }
    if (now == "lift" || now == "flipped") held = false;
    if (now == "flipped" && i > 0 && trace[i - 1] != "flipped") ++flips;
    if (now == "undo" || now == "reverse" || now == "finish" || now == "end") {
      ASSERT_FALSE(held) << now << " while clients are held back";
    }
    if (flips > 0) {
      ASSERT_NE(now, "undo");
      ASSERT_NE(now, "copy");
    }
  }
  EXPECT_EQ(it.past_flip(), flips > 0);
  EXPECT_EQ(it.done(), flips == 1 && !it.returned());
  if (!it.past_flip()) {
    EXPECT_TRUE(it.undone());
    EXPECT_TRUE(it.reason());
  } else {
    ASSERT_GE(trace.size(), 2U);
    EXPECT_EQ(trace[trace.size() - 1], "end");
  }
}

TEST(cluster_job, all_goes_well) {
  cluster_job it;
  world w;
  EXPECT_THAT(run(it, [&](cluster_job& j, step s, int) { w.well(j, s); }),
              ElementsAre("take", "check", "begin", "record", "prepare", "copy", "catch_up",
                          "compare", "ready", "back", "fence", "verify", "flip", "flipped",
                          "reverse", "finish", "end"));
  EXPECT_TRUE(it.done());
  EXPECT_FALSE(it.returned());
  EXPECT_FALSE(it.reason());
}

TEST(cluster_job, and_back) {
  cluster_job it;
  world w{.want = wish::roll_back};
  auto trace = run(it, [&](cluster_job& j, step s, int) { w.well(j, s); });
  trace.erase(trace.begin(), trace.begin() + 14);
  EXPECT_THAT(trace, ElementsAre("reverse", "catch_up", "compare", "fence", "verify", "flip",
                                 "flipped", "finish", "end"));
  EXPECT_FALSE(it.done());
  EXPECT_TRUE(it.returned());
}

TEST(cluster_job, one_failure_at_each_step) {
  for (const wish want : {wish::finish, wish::roll_back}) {
    for (const bool transient : {false, true}) {
      for (int at = 0; at <= 24; ++at) {
        cluster_job it;
        world w{.want = want};
        const auto trace = run(it, [&](cluster_job& j, step s, int n) {
          if (n == at) return j.failed(no, transient);
          w.well(j, s);
        });
        SCOPED_TRACE(at);
        check(trace, it);
      }
    }
  }
}

TEST(cluster_job, two_failures_anywhere) {
  for (int first = 0; first <= 26; ++first) {
    for (int second = first + 1; second <= 30; ++second) {
      cluster_job it;
      world w{.want = wish::roll_back};
      const auto trace = run(it, [&](cluster_job& j, step s, int n) {
        if (n == first || n == second) return j.failed(no, n % 2 == 0);
        w.well(j, s);
      });
      SCOPED_TRACE(std::to_string(first) + " " + std::to_string(second));
      check(trace, it);
    }
  }
}

TEST(cluster_job, an_abort_at_each_step) {
  for (int at = 0; at <= 16; ++at) {
    cluster_job it;
    world w;
    const auto trace = run(it, [&](cluster_job& j, step s, int n) {
      if (n == at) j.abort();
      w.well(j, s);
    });
    SCOPED_TRACE(at);
    check(trace, it);
    EXPECT_EQ(it.done(), at >= 12) << "once it is flipped it is too late";
    if (!it.done()) {
      EXPECT_EQ(it.reason()->sqlstate, "57014");
    }
  }
}

TEST(cluster_job, an_unknown_flip_is_looked_at_before_anybody_is_let_through) {
  for (const wish want : {wish::finish, wish::roll_back}) {
    for (const bool happened : {false, true}) {
      cluster_job it;
      world w{.want = want, .flip_happens = happened};
      int flips = 0;
      const int doubtful = want == wish::roll_back ? 2 : 1;
      const auto trace = run(it, [&](cluster_job& j, step s, int) {
        if (s == step::flip && ++flips == doubtful) return j.uncertain({"08006", "gone", {}, {}});
        w.well(j, s);
      });
      check(trace, it);
      if (want == wish::finish) {
        EXPECT_EQ(it.done(), happened);
      }
      if (want == wish::roll_back) {
        EXPECT_EQ(it.returned(), happened);
        EXPECT_EQ(it.done(), !happened) << "the new servers keep the name";
      }
    }
  }
}

TEST(cluster_job, a_fence_is_tried_again_but_not_for_ever) {
  cluster_job it(0, {.fences = 3});
  world w;
  int fences = 0;
  const auto trace = run(it, [&](cluster_job& j, step s, int) {
    if (s == step::fence) {
      ++fences;
      return j.failed({"55P03", "busy", {}, {}}, true);
    }
    w.well(j, s);
  });
  EXPECT_EQ(fences, 3);
  check(trace, it);
  EXPECT_EQ(it.reason()->sqlstate, "55P03");
}

TEST(cluster_job, a_way_back_that_fails_leaves_the_new_servers_at_work) {
  cluster_job it(0, {.fences = 3});
  world w{.want = wish::roll_back};
  int fences = 0;
  std::string seen;
  const auto trace = run(it, [&](cluster_job& j, step s, int) {
    if (s == step::verify && j.on_the_way_back()) {
      ++fences;
      return j.failed({"XX001", "they differ", {}, {}});
    }
    if (s == step::reverse && j.reason()) seen = j.reason()->sqlstate;
    w.well(j, s);
  });
  EXPECT_EQ(fences, 1);
  EXPECT_EQ(seen, "XX001");
  check(trace, it);
  EXPECT_TRUE(it.done());
}

TEST(cluster_job, what_a_lost_runner_left_behind) {
  struct {
    stored found;
    steps begins;
    bool done, returned;
  } const cases[] = {
      {stored::moving, {"take", "lift", "undo", "check"}, true, false},
      {stored::given_up, {"take", "lift", "undo", "end"}, false, false},
      {stored::kept, {"take", "finish", "end"}, true, false},
      {stored::flipped, {"take", "flipped", "lift", "reverse", "finish", "end"}, true, false},
      {stored::returned, {"take", "flipped", "finish", "end"}, false, true}};
  for (const auto& one : cases) {
    cluster_job it;
    world w{.found = one.found};
    const auto trace = run(it, [&](cluster_job& j, step s, int) { w.well(j, s); });
    ASSERT_GE(trace.size(), one.begins.size());
    EXPECT_EQ(steps(trace.begin(), trace.begin() + static_cast<int>(one.begins.size())),
              one.begins);
    EXPECT_EQ(it.done(), one.done);
    EXPECT_EQ(it.returned(), one.returned);
  }
  cluster_job too_often(5);
  world w{.found = stored::moving};
  EXPECT_THAT(run(too_often, [&](cluster_job& j, step s, int) { w.well(j, s); }),
              ElementsAre("take", "lift", "undo", "end"));
}

TEST(cluster_job, undoing_that_never_works_ends_and_stays_for_a_later_run) {
  cluster_job it(0, {.undos = 4});
  world w;
  int undos = 0;
  run(it, [&](cluster_job& j, step s, int) {
    if (s == step::copy) return j.failed({"53100", "full", {}, {}});
    if (s == step::undo) {
      ++undos;
      return j.failed(no);
    }
    w.well(j, s);
  });
  EXPECT_EQ(undos, 4);
  EXPECT_FALSE(it.undone());
  EXPECT_EQ(it.reason()->sqlstate, "53100");
}

}  // namespace
}  // namespace pgsled::moving
