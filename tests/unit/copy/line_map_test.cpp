#include "common/copy/line_map.hpp"

#include <gtest/gtest.h>

#include <random>

namespace pgsled::copy {
namespace {

TEST(line_map, finds_the_clients_line) {
  line_map map;
  EXPECT_FALSE(map.client_line(1));
  map.take(1, 1);     // header
  map.skip(3);
  map.take(2, 2);     // lines 5, 6
  map.skip(1);
  map.take(3, 1);     // 8 to 10, counted as one
  map.take(1, 1);     // 11
  EXPECT_EQ(map.client_line(1), 1u);
  EXPECT_EQ(map.client_line(2), 5u);
  EXPECT_EQ(map.client_line(3), 6u);
  EXPECT_EQ(map.client_line(4), 8u);
  EXPECT_EQ(map.client_line(5), 11u);
  EXPECT_EQ(map.client_line(6), 12u);   // the last row goes on
  map.skip(1);
  EXPECT_FALSE(map.client_line(6));
  EXPECT_FALSE(map.client_line(0));
}

TEST(line_map, keeps_the_newest_within_its_bound) {
  line_map map;
  std::vector<std::uint64_t> truth{0};
  std::mt19937 random(3);
  std::uint64_t client = 0;
  while (truth.size() < 3'000'000) {
    const auto gap = random() % 5, lines = 1 + random() % 2;
    map.skip(gap);
    map.take(lines, lines);
    client += gap;
    for (std::uint64_t i = 0; i < lines; ++i) truth.push_back(++client);
  }
  EXPECT_FALSE(map.client_line(1));
  for (std::size_t back = 1; back < 400'000; back += 997) {
    const auto line = truth.size() - back;
    ASSERT_EQ(map.client_line(line), truth[line]);
  }
}

}  // namespace
}  // namespace pgsled::copy
