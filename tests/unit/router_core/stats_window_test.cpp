#include "services/router/admin/stats_window.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

gathered_row row(std::string instance, int pool, int queries) {
  return {std::move(instance),
          {{"pool", std::to_string(pool)}, {"query_count", std::to_string(queries)}}};
}

TEST(stats_window, growth_between_two_samples) {
  stats_window window;
  EXPECT_EQ(window.rate(1, "query_count"), 0u);
  window.sample({row("f.0", 1, 1000), row("f.0", 2, 50), row("f.1", 1, 7)}, 5'000);
  EXPECT_EQ(window.grown(1, "query_count"), 0u) << "since when is not known";
  window.sample({row("f.0", 1, 1020), row("f.0", 2, 50), row("f.1", 1, 17)}, 15'000);
  EXPECT_EQ(window.grown(1, "query_count"), 30u);
  EXPECT_EQ(window.rate(1, "query_count"), 3u);
  EXPECT_EQ(window.grown(2, "query_count"), 0u);
  EXPECT_EQ(window.grown(3, "query_count"), 0u);
  EXPECT_EQ(window.grown(1, "other"), 0u);
  window.sample({row("f.0", 1, 1020), row("f.1", 1, 17)}, 25'000);
  EXPECT_EQ(window.grown(1, "query_count"), 0u) << "the last window only";
}

TEST(stats_window, processes_come_go_and_are_silent) {
  stats_window window;
  window.sample({row("f", 1, 100), row("g", 1, 100)}, 0);
  window.sample({row("f", 1, 110)}, 10'000);
  EXPECT_EQ(window.grown(1, "query_count"), 10u);
  window.sample({row("f", 1, 120), row("g", 1, 130)}, 20'000);
  EXPECT_EQ(window.grown(1, "query_count"), 40u) << "it had not answered";
  window.sample({row("f", 1, 3), row("g", 1, 130), row("h", 1, 5)}, 30'000);
  EXPECT_EQ(window.grown(1, "query_count"), 8u) << "one was started anew, one is new";
  for (int n = 4; n < 9; ++n) window.sample({row("f", 1, 3)}, n * 10'000);
  window.sample({row("g", 1, 2)}, 90'000);
  EXPECT_EQ(window.grown(1, "query_count"), 2u);
}

TEST(stats_window, knows_when) {
  stats_window window;
  EXPECT_TRUE(window.due(1'000, 500));
  EXPECT_FALSE(window.due(1'000, 0));
  window.taking(1'000, 500);
  EXPECT_FALSE(window.due(1'499, 500));
  EXPECT_TRUE(window.due(1'500, 500));
}

}  // namespace
}  // namespace pgsled::router
