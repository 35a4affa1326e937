#include "common/metrics/metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pgsled::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr description queries{"pgsled_queries_total", type::counter, "Queries of \"all\" kinds."};
constexpr description clients{"pgsled_clients", type::gauge, "Clients connected."};
constexpr description latency{"pgsled_wait_seconds", type::histogram, "Time waited."};

TEST(metrics, counters_gauges_and_computed_values) {
  registry r;
  cell n;
  n.add(5);
  const auto a = r.add(queries, {{"pool", "a\"b\n"}}, n);
  const auto b = r.add(clients, {}, [] { return 2.5; });
  const auto text = r.expose({{"service", "frontend"}}, false);
  EXPECT_THAT(text, HasSubstr("# TYPE pgsled_queries_total counter\n"));
  EXPECT_THAT(text, HasSubstr("pgsled_queries_total{pool=\"a\\\"b\\n\",service=\"frontend\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("pgsled_clients{service=\"frontend\"} 2.5\n"));
  const auto open = r.expose({}, true);
  EXPECT_THAT(open, HasSubstr("# TYPE pgsled_queries counter\n"));
  EXPECT_THAT(open, HasSubstr("# HELP pgsled_queries Queries of \\\"all\\\" kinds.\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_queries_total{pool=\"a\\\"b\\n\"} 5\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_clients 2.5\n"));
  EXPECT_TRUE(open.ends_with("\n# EOF\n"));
}

TEST(metrics, a_series_own_label_wins_over_the_common_one) {
  registry r;
  cell n;
  const auto a = r.add(clients, {{"instance", "frontend-1.0"}}, n);
  const auto text = r.expose({{"instance", "frontend-1"}}, true);
  EXPECT_THAT(text, HasSubstr("pgsled_clients{instance=\"frontend-1.0\"} 0\n"));
}

TEST(metrics, histogram_bounds_are_inclusive_powers_of_two) {
  histogram_cell h;
  for (const std::uint64_t us : {0u, 16u, 17u, 32u, 33u}) h.observe_us(us);
  h.observe_us(16'777'216);
  h.observe_us(16'777'217);
  h.observe_us(~std::uint64_t{0} / 2);
  EXPECT_EQ(h.count(0), 2u);
  EXPECT_EQ(h.count(1), 2u);
  EXPECT_EQ(h.count(2), 1u);
  EXPECT_EQ(h.count(histogram_cell::buckets - 1), 1u);
  EXPECT_EQ(h.count(histogram_cell::buckets), 2u);
  EXPECT_DOUBLE_EQ(histogram_cell::upper_bound_seconds(0), 16e-6);
}

TEST(metrics, histograms_are_cumulative_and_end_at_infinity) {
  registry r;
  histogram_cell h;
  h.observe_us(10);
  h.observe_us(20);
  const auto a = r.add(latency, {{"pool", "p"}}, h);
  const auto open = r.expose({}, true);
  EXPECT_THAT(open, HasSubstr("pgsled_wait_seconds_bucket{pool=\"p\",le=\"1.6e-05\"} 1\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_wait_seconds_bucket{pool=\"p\",le=\"3.2e-05\"} 2\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_wait_seconds_bucket{pool=\"p\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_wait_seconds_count{pool=\"p\"} 2\n"));
  EXPECT_THAT(open, HasSubstr("pgsled_wait_seconds_sum{pool=\"p\"} 3e-05\n"));
  EXPECT_THAT(r.expose({}, false),
              HasSubstr("pgsled_wait_seconds_bucket{pool=\"p\",le=\"+Inf\"} 2\n"));
}

TEST(metrics, a_dropped_token_removes_the_series_also_after_the_registry) {
  std::shared_ptr<void> kept;
  {
    registry r;
    cell n;
    auto a = r.add(clients, {{"n", "1"}}, n);
    kept = r.add(clients, {{"n", "2"}}, n);
    a.reset();
    EXPECT_THAT(r.expose({}, true), Not(HasSubstr("n=\"1\"")));
    EXPECT_THAT(r.expose({}, true), HasSubstr("n=\"2\""));
  }
  kept.reset();
}

}  // namespace
}  // namespace pgsled::metrics
