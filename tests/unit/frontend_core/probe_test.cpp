#include <gtest/gtest.h>

#include "services/frontend/probe.hpp"

namespace pgsled::frontend {
namespace {

std::size_t lines_with(const std::string& text, std::string_view what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST(error_counts, a_series_for_each_code_once_seen) {
  metrics::registry to;
  probe counted;
  const auto series = counted.publish(to, "0");
  EXPECT_EQ(lines_with(to.expose({}, false), "pgsled_errors_total{"), 1u);
  counted.errors.add("40001");
  counted.errors.add("40001");
  counted.errors.add("23505");
  const auto text = to.expose({}, false);
  EXPECT_NE(text.find("pgsled_errors_total{worker=\"0\",sqlstate=\"40001\"} 2\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("sqlstate=\"23505\"} 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("sqlstate=\"other\"} 0\n"), std::string::npos) << text;
}

TEST(error_counts, what_a_function_raises_has_a_bound) {
  metrics::registry to;
  probe counted;
  const auto series = counted.publish(to, "0");
  for (std::size_t i = 0; i < 2 * error_counts::most_codes; ++i) {
    counted.errors.add(fmt::format("U{:04}", i));
  }
  for (const char* odd : {"", "4000", "400011", "4000\"", "abcde"}) counted.errors.add(odd);
  const auto text = to.expose({}, false);
  EXPECT_EQ(lines_with(text, "pgsled_errors_total{"), error_counts::most_codes + 1);
  EXPECT_NE(text.find(fmt::format("sqlstate=\"other\"}} {}\n", error_counts::most_codes + 5)),
            std::string::npos)
      << text;
}

TEST(error_counts, before_it_is_published_nothing_is_lost) {
  metrics::registry to;
  probe counted;
  counted.errors.add("40001");
  const auto series = counted.publish(to, "0");
  EXPECT_NE(to.expose({}, false).find("sqlstate=\"other\"} 1\n"), std::string::npos);
}

}  // namespace
}  // namespace pgsled::frontend
