#include "common/moving/job.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace pgsled::moving {
namespace {

using testing::ElementsAre;

constexpr int forward = 15;   // steps from take to end

// Runs `it` to its end; `play` says how the n-th step goes. The names of the steps.
std::vector<std::string> run(job& it, const std::function<void(job&, step, int)>& play) {
  std::vector<std::string> trace;
  for (int n = 0; n < 2000; ++n) {
    const auto next = it.next();
    if (!next) return trace;
    trace.emplace_back(name_of(next->what));
    play(it, next->what, n);
  }
  ADD_FAILURE() << "it has no end";
  return trace;
}

void well(job& it, step what) {
  if (what == step::take) return it.took(stored::nothing);
  if (what == step::settle) return it.settled(false);
  it.succeeded();
}

TEST(job, all_goes_well) {
  job it;
  EXPECT_THAT(run(it, [](job& j, step s, int) { well(j, s); }),
              ElementsAre("take", "check", "begin", "record", "refine", "prepare", "copy",
                          "catch_up", "compare", "fence", "verify", "flip", "flipped", "clean",
                          "drop", "end"));
  EXPECT_TRUE(it.done());
  EXPECT_FALSE(it.reason());
}

// Whatever fails, and however often: never a flip without a verify straight before it, never one
// after lift, nothing left behind without a flip, and only forward after it.
void check(const std::vector<std::string>& trace, const job& it) {
  bool flipped = false, fenced = false;
  for (std::size_t i = 0; i < trace.size(); ++i) {
    if (trace[i] == "flip") {
      ASSERT_EQ(trace[i - 1], "verify");
      ASSERT_EQ(trace[i - 2], "fence");
    }
    if (trace[i] == "fence" || trace[i] == "refine") fenced = true;
    if (trace[i] == "lift") fenced = false;
    if (trace[i] == "undo") {
      ASSERT_FALSE(fenced && trace[i - 1] == "fence") << "lifted first";
    }
    if (trace[i] == "flipped") flipped = true;
    if (flipped) {
      ASSERT_NE(trace[i], "undo");
      ASSERT_NE(trace[i], "copy");
    }
  }
  EXPECT_EQ(it.done(), flipped);
  if (!it.done()) {
    EXPECT_TRUE(it.undone());
    EXPECT_TRUE(it.reason());
  }
}

TEST(job, one_failure_at_each_step) {
  for (const bool transient : {false, true}) {
    for (int at = 0; at <= forward; ++at) {
      job it;
      const auto trace = run(it, [&](job& j, step s, int n) {
        if (n == at) return j.failed({"XX000", "no", {}, {}}, transient);
        well(j, s);
      });
      SCOPED_TRACE(at);
      check(trace, it);
    }
  }
}

TEST(job, an_unknown_flip_is_lifted_and_looked_at) {
  for (const bool happened : {false, true}) {
    job it;
    const auto trace = run(it, [&](job& j, step s, int) {
      if (s == step::flip) return j.uncertain({"08006", "gone", {}, {}});
      if (s == step::settle) return j.settled(happened);
      well(j, s);
    });
    check(trace, it);
    EXPECT_EQ(it.done(), happened);
    const std::vector<std::string> tail(trace.begin() + 11, trace.end());
    if (happened) {
      EXPECT_THAT(tail, ElementsAre("flip", "lift", "settle", "flipped", "clean", "drop", "end"));
    } else {
      EXPECT_THAT(tail, ElementsAre("flip", "lift", "settle", "undo", "end"));
    }
  }
}

TEST(job, a_fence_is_tried_again_but_not_for_ever) {
  job it(0, {.fences = 3});
  int fences = 0;
  const auto trace = run(it, [&](job& j, step s, int) {
    if (s == step::fence) {
      ++fences;
      return j.failed({"55P03", "busy", {}, {}}, true);
    }
    well(j, s);
  });
  EXPECT_EQ(fences, 3);
  check(trace, it);
  EXPECT_EQ(it.reason()->sqlstate, "55P03");
}

// Wherever it pauses: the fence is gone first, then all is caught up with and compared again.
TEST(job, a_pause_goes_on_with_catching_up) {
  for (const step at : {step::copy, step::catch_up, step::compare, step::fence, step::verify}) {
    job it;
    int pauses = 0;
    const auto trace = run(it, [&](job& j, step s, int) {
      if (s == at && pauses++ < 3) return j.pause({"55000", "other columns", {}, {}});
      well(j, s);
    });
    SCOPED_TRACE(name_of(at));
    check(trace, it);
    EXPECT_TRUE(it.done());
    EXPECT_FALSE(it.reason());
    const std::string lifted = at >= step::fence ? "lift" : std::string(name_of(at));
    for (std::size_t i = 0; i < trace.size(); ++i) {
      if (trace[i] != "paused") continue;
      EXPECT_EQ(trace[i - 1], lifted);
      EXPECT_EQ(trace[i + 1], at == step::copy ? "copy" : "catch_up");
    }
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "paused"), 3);
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "prepare"), 1) << "slots are kept";
  }
}

// As often as a lost runner is followed by another one.
TEST(job, a_copy_begins_again_after_its_pause) {
  for (const int pauses : {1, 2, 9}) {
    job it(0, {.runs = 3});
    int paused = 0;
    const auto trace = run(it, [&](job& j, step s, int) {
      if (s == step::copy && paused++ < pauses) {
        return j.pause({"55000", "no column", {}, {}}, true);
      }
      well(j, s);
    });
    check(trace, it);
    for (std::size_t i = 0; i + 2 < trace.size(); ++i) {
      if (trace[i] != "paused") continue;
      EXPECT_EQ(trace[i + 1], "undo");
      EXPECT_EQ(trace[i + 2], "check");
    }
    EXPECT_EQ(it.done(), pauses < 9);
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "paused"), std::min(pauses, 3));
  }
  for (const bool aborted : {true, false}) {
    job it;
    const auto trace = run(it, [&](job& j, step s, int) {
      if (s == step::copy) return j.pause({"55000", "no column", {}, {}}, true);
      if (s != step::pause) return well(j, s);
      if (aborted) j.abort();
      j.failed({"55000", "no column", {}, {}});
    });
    check(trace, it);
    EXPECT_EQ(std::vector(trace.end() - 3, trace.end()),
              (std::vector<std::string>{"paused", "undo", "end"}));
    EXPECT_EQ(it.reason()->sqlstate, aborted ? "57014" : "55000");
  }
}

TEST(job, a_pause_ends_with_an_abort_or_for_a_reason) {
  for (const step at : {step::copy, step::catch_up, step::compare, step::fence, step::verify}) {
    for (const bool aborted : {true, false}) {
      job it;
      const auto trace = run(it, [&](job& j, step s, int) {
        if (s == at) return j.pause({"55000", "other columns", {}, {}});
        if (s != step::pause) return well(j, s);
        if (aborted) j.abort();
        j.failed({"55000", "written anew", {}, {}});
      });
      SCOPED_TRACE(name_of(at));
      check(trace, it);
      ASSERT_TRUE(it.reason());
      EXPECT_EQ(it.reason()->sqlstate, aborted ? "57014" : "55000");
      EXPECT_EQ(std::vector(trace.end() - 3, trace.end()),
                (std::vector<std::string>{"paused", "undo", "end"}));
    }
  }
  job before;   // while the fence falls
  const auto trace = run(before, [&](job& j, step s, int) {
    if (s == step::verify) return j.pause({"55000", "other columns", {}, {}});
    if (s == step::lift) j.abort();
    well(j, s);
  });
  EXPECT_EQ(std::vector(trace.end() - 3, trace.end()),
            (std::vector<std::string>{"lift", "undo", "end"}));
  EXPECT_EQ(before.reason()->sqlstate, "57014");
}

TEST(job, what_a_lost_runner_left_behind) {
  job again;
  auto trace = run(again, [](job& j, step s, int n) {
    if (n == 0) return j.took(stored::moving);
    well(j, s);
  });
  EXPECT_THAT(std::vector(trace.begin(), trace.begin() + 4),
              ElementsAre("take", "lift", "undo", "check"));
  EXPECT_TRUE(again.done());

  job forward_only;
  trace = run(forward_only, [](job& j, step s, int n) {
    if (n == 0) return j.took(stored::flipped);
    if (n == 2 || n == 4) return j.failed({"08006", "gone", {}, {}});
    well(j, s);
  });
  EXPECT_THAT(trace, ElementsAre("take", "flipped", "clean", "clean", "drop", "drop", "end"));
  EXPECT_TRUE(forward_only.done());

  job given_up;
  trace = run(given_up, [](job& j, step s, int n) {
    if (n == 0) return j.took(stored::given_up);
    well(j, s);
  });
  EXPECT_THAT(trace, ElementsAre("take", "lift", "undo", "end"));
  EXPECT_FALSE(given_up.done());

  job too_often(5);
  trace = run(too_often, [](job& j, step s, int n) {
    if (n == 0) return j.took(stored::moving);
    well(j, s);
  });
  EXPECT_THAT(trace, ElementsAre("take", "lift", "undo", "end"));
  EXPECT_FALSE(too_often.done());
}

TEST(job, abort_at_each_step) {
  for (int at = 0; at < forward; ++at) {
    job it;
    const auto trace = run(it, [&](job& j, step s, int n) {
      if (n == at) j.abort();
      well(j, s);
    });
    SCOPED_TRACE(at);
    if (at >= 11) {
      EXPECT_TRUE(it.done()) << "too late";
    } else {
      EXPECT_FALSE(it.done());
      EXPECT_TRUE(it.undone());
      EXPECT_EQ(std::count(trace.begin(), trace.end(), "flip"), 0);
    }
  }
}

// As the driver does: a drop that went well is followed by another move while there is one.
std::vector<std::string> run_rounds(job& it, int rounds,
                                    const std::function<bool(job&, step, int)>& play) {
  return run(it, [&](job& j, step s, int n) {
    if (play(j, s, n)) return;
    if (s == step::drop && --rounds > 0) return j.go_on();
    well(j, s);
  });
}

TEST(job, a_goal_of_several_moves) {
  job it;
  const auto trace = run_rounds(it, 3, [](job&, step, int) { return false; });
  EXPECT_EQ(std::count(trace.begin(), trace.end(), "flip"), 3);
  EXPECT_EQ(std::count(trace.begin(), trace.end(), "take"), 1);
  EXPECT_EQ(std::count(trace.begin(), trace.end(), "end"), 1);
  EXPECT_TRUE(it.done());
}

TEST(job, a_later_move_that_fails_is_undone_alone) {
  for (int at = 15; at < 29; ++at) {   // check … drop of the second one
    job it;
    int failed = -1;
    const auto trace = run_rounds(it, 2, [&](job& j, step s, int n) {
      if (n != at) return false;
      failed = static_cast<int>(s);
      j.failed({"XX000", "no", {}, {}});
      return true;
    });
    SCOPED_TRACE(at);
    if (failed > static_cast<int>(step::flip)) {
      EXPECT_TRUE(it.done());
      continue;
    }
    EXPECT_FALSE(it.done());
    EXPECT_TRUE(it.undone());
    ASSERT_TRUE(it.reason());
    EXPECT_EQ(it.reason()->sqlstate, "XX000");
    EXPECT_EQ(trace.back(), "end");
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "undo"),
              failed > static_cast<int>(step::begin) ? 1 : 0);
  }
}

TEST(job, an_abort_between_two_moves_begins_no_other) {
  for (int at = 0; at < 31; ++at) {
    job it;
    const auto trace = run_rounds(it, 2, [&](job& j, step, int n) {
      if (n == at) j.abort();
      return false;
    });
    SCOPED_TRACE(at);
    const auto flips = std::count(trace.begin(), trace.end(), "flip");
    EXPECT_EQ(flips, at < 11 ? 0 : at < 25 ? 1 : 2);
    EXPECT_EQ(it.done(), flips == 2);
    if (flips < 2) {
      EXPECT_EQ(it.reason()->sqlstate, "57014");
    }
  }
}

TEST(job, a_takeover_between_two_moves) {
  job it;
  const auto trace = run_rounds(it, 2, [&](job& j, step s, int) {
    if (s != step::take) return false;
    j.took(stored::flipped);
    return true;
  });
  EXPECT_EQ(std::vector(trace.begin(), trace.begin() + 5),
            (std::vector<std::string>{"take", "flipped", "clean", "drop", "check"}));
  EXPECT_EQ(std::count(trace.begin(), trace.end(), "flip"), 1);
  EXPECT_TRUE(it.done());
}

}  // namespace
}  // namespace pgsled::moving
