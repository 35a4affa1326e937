#include "common/placement/change.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace pgsled::placement {
namespace {

mapping_range range(const std::string& start, const std::string& end, std::uint32_t shard) {
  return {start, end, !start.empty(), !end.empty(), shard};
}
mapping of(std::vector<std::pair<std::string, std::uint32_t>> list,
           std::vector<mapping_range> ranges = {}, std::int64_t fallback = -1,
           std::string type = "bigint") {
  mapping made{0, std::move(type), std::move(list), std::move(ranges), fallback};
  made.id = id_of(made);
  return made;
}

TEST(change, what_only_adds_moves_nothing) {
  const auto before = of({{"1", 0}, {"2", 1}}, {range("10", "20", 0)});
  for (const auto& now : {before, of({{"1", 0}, {"2", 1}, {"3", 2}}, {range("10", "20", 0)}),
                          of({{"2", 1}, {"1", 0}}, {range("10", "15", 0), range("15", "20", 0)}),
                          of({{"1", 0}, {"2", 1}, {"12", 0}}, {range("5", "30", 0)}, 1)}) {
    EXPECT_FALSE(first_moved(before, now));
  }
}

TEST(change, what_moves_is_named) {
  const auto before = of({{"1", 0}, {"2", 1}}, {range("10", "20", 0)}, 2);
  const auto moved = first_moved(before, of({{"1", 0}, {"2", 0}}, {range("10", "20", 0)}, 2));
  ASSERT_TRUE(moved);
  EXPECT_EQ(moved->value, "2");
  EXPECT_EQ(moved->from, 1u);
  EXPECT_EQ(moved->to, 0u);
  for (const auto& now : {of({{"2", 1}}, {range("10", "20", 0)}, 2),
                          of({{"1", 0}, {"2", 1}}, {range("10", "19", 0)}, 2),
                          of({{"1", 0}, {"2", 1}}, {range("11", "20", 0)}, 2),
                          of({{"1", 0}, {"2", 1}, {"15", 1}}, {range("10", "20", 0)}, 2),
                          of({{"1", 0}, {"2", 1}}, {range("10", "20", 0), range("30", "31", 1)}, 2),
                          of({{"1", 0}, {"2", 1}}, {range("10", "20", 0)}, 1),
                          of({{"1", 0}, {"2", 1}}, {range("10", "20", 0)})}) {
    EXPECT_TRUE(first_moved(before, now));
  }
  const auto gone = first_moved(of({}, {}, 1), of({}, {}));
  ASSERT_TRUE(gone);
  EXPECT_FALSE(gone->to);
}

TEST(change, uuids_and_texts) {
  const std::string low = "00000000-0000-0000-0000-0000000000ff",
                    high = "ffffffff-ffff-ffff-ffff-ffffffffffff";
  const auto uuids = of({}, {range(low, high, 0)}, 1, "uuid");
  EXPECT_FALSE(first_moved(uuids, uuids));
  EXPECT_TRUE(first_moved(uuids, of({}, {range(low, "", 0)}, 1, "uuid"))) << "the last one";
  EXPECT_TRUE(first_moved(
      uuids, of({}, {range("00000000-0000-0000-0000-000000000100", high, 0)}, 1, "uuid")));
  const auto texts = of({{"b", 0}}, {range("a", "m", 1)}, -1, "varchar");
  EXPECT_FALSE(first_moved(texts, of({{"b", 0}, {"z", 3}}, {range("", "n", 1)}, -1, "varchar")));
  EXPECT_TRUE(first_moved(texts, of({{"b", 0}}, {range("b", "m", 1)}, -1, "varchar")));
  EXPECT_TRUE(first_moved(texts, of({}, {range("a", "m", 1)}, -1, "varchar")));
}

// Against every value of a small world.
TEST(change, random_mappings) {
  std::mt19937 chance(5);
  const auto random_mapping = [&] {
    mapping made = of({});
    std::set<int> used;
    for (unsigned i = chance() % 4; i > 0; --i) {
      const int value = static_cast<int>(chance() % 40);
      if (used.insert(value).second) made.list.emplace_back(std::to_string(value), chance() % 3);
    }
    int at = static_cast<int>(chance() % 10);
    for (unsigned i = chance() % 4; i > 0; --i) {
      const int end = at + 1 + static_cast<int>(chance() % 8);
      made.ranges.push_back(range(std::to_string(at), std::to_string(end),
                                  static_cast<std::uint32_t>(chance() % 3)));
      at = end + static_cast<int>(chance() % 3);
    }
    if (chance() % 3 == 0) made.fallback = chance() % 3;
    return made;
  };
  int moved = 0;
  for (int round = 0; round < 20'000; ++round) {
    const auto before = random_mapping();
    auto now = before;
    if (chance() % 2 == 0) now = random_mapping();
    if (chance() % 2 == 0 && !now.list.empty()) now.list.pop_back();
    const mapping_index a(before), b(now);
    bool wanted = false;
    for (std::int64_t key = -5; key < 80; ++key) {
      value one;
      one.number = key;
      const auto from = a.find(one);
      wanted = wanted || (from && from != b.find(one));
    }
    const auto found = first_moved(before, now);
    ASSERT_EQ(found.has_value(), wanted);
    moved += wanted ? 1 : 0;
  }
  EXPECT_GT(moved, 1000);
  EXPECT_LT(moved, 19'000);
}

}  // namespace
}  // namespace pgsled::placement
