#include "common/moving/copying.hpp"

#include <gtest/gtest.h>

#include <map>

#include "common/moving/table.hpp"

namespace pgsled::moving {
namespace {

// Every block of every table once, in parts of the size that was asked for, the last one open.
TEST(copying, parts_cover_each_table_once) {
  const std::vector<table_size> sizes{{0, 0, 1000}, {0, 1, 0}, {1, 0, 100}, {1, 1, 101}, {2, 0, 1}};
  for (std::uint32_t preferred = 0; preferred < 4; ++preferred) {
    copy_queue queue(sizes, 100);
    std::map<std::pair<std::uint32_t, std::size_t>, std::map<std::uint64_t, copy_part>> got;
    while (const auto part = queue.take(preferred)) {
      EXPECT_TRUE((got[{part->source, part->table}].emplace(part->from, *part).second));
    }
    EXPECT_EQ(queue.left(), 0u);
    ASSERT_EQ(got.size(), sizes.size());
    for (const auto& size : sizes) {
      const auto& parts = got[{size.source, size.table}];
      std::uint64_t next = 0;
      for (const auto& [from, part] : parts) {
        EXPECT_EQ(from, next);
        if (part.to) {
          EXPECT_EQ(*part.to, from + 100);
        } else {
          EXPECT_EQ(from, parts.rbegin()->first) << "only the last is open";
        }
        next = part.to.value_or(0);
      }
      EXPECT_FALSE(parts.rbegin()->second.to);
      EXPECT_EQ(parts.size(), std::max<std::size_t>(1, (size.blocks + 99) / 100));
    }
  }
}

TEST(copying, large_tables_first_and_workers_keep_to_their_source) {
  copy_queue queue(std::vector<table_size>{{0, 0, 10}, {0, 1, 300}, {1, 0, 200}}, 100);
  EXPECT_EQ(queue.take(1), (copy_part{1, 0, 0, 100}));
  EXPECT_EQ(queue.take(0), (copy_part{0, 1, 0, 100}));
  EXPECT_EQ(queue.take(1), (copy_part{1, 0, 100, std::nullopt}));
  EXPECT_EQ(queue.take(1), (copy_part{0, 1, 100, 200})) << "nothing of its own is left";
  EXPECT_EQ(queue.take(7), (copy_part{0, 1, 200, std::nullopt}));
  EXPECT_EQ(queue.take(0), (copy_part{0, 0, 0, std::nullopt}));
  EXPECT_FALSE(queue.take(0));
}

TEST(copying, rate) {
  copy_rate none(0);
  EXPECT_EQ(none.take(1 << 30, 5), 0);
  copy_rate rate(1000);
  std::int64_t now = 7'000'000, waited = 0;
  for (int i = 0; i < 10; ++i) {
    const auto pause = rate.take(500, now);
    now += pause;
    waited += pause;
  }
  EXPECT_EQ(waited, 5'000'000) << "5000 bytes at 1000 a second";
  now += 60'000'000;
  EXPECT_EQ(rate.take(500, now), 500'000) << "what was not used is not saved up";
  EXPECT_EQ(copy_rate(1).take(std::int64_t{1} << 60, now), 60'000'000) << "bounded";
}

TEST(copying, statements) {
  table t;
  t.schema = "s";
  t.name = "t";
  t.columns = {{"a", "bigint", 20, -1, false}, {"b", "text", 25, -1, false}};
  EXPECT_TRUE(has_binary_form(t));
  EXPECT_EQ(copy_out(t, {}, true, {8, 16}),
            "COPY (SELECT \"a\", \"b\" FROM ONLY \"s\".\"t\" WHERE true AND ctid >= '(8,0)'::tid "
            "AND ctid < '(16,0)'::tid) TO STDOUT (FORMAT binary)");
  EXPECT_EQ(copy_out(t, {}, false, {}),
            "COPY (SELECT \"a\", \"b\" FROM ONLY \"s\".\"t\" WHERE true) TO STDOUT");
  EXPECT_EQ(copy_in(t, true), "COPY \"s\".\"t\" (\"a\", \"b\") FROM STDIN (FORMAT binary)");
  const std::vector<std::string> some{" E'1'", " E'2'"};
  EXPECT_TRUE(checksum(t, {}, some).ends_with("WHERE true AND (( E'1') OR ( E'2'))"));
  t.key = 0;
  EXPECT_TRUE(checksum(t, {2, {0}}, some).ends_with(" AND \"a\" IN ( E'1', E'2')"))
      << checksum(t, {2, {0}}, some);
  t.key = table::none;
  for (const std::uint32_t other : {2205u, 1033u, 24u, 16400u, 0u}) {   // regclass, aclitem, …
    t.columns[1].type_number = other;
    EXPECT_FALSE(has_binary_form(t)) << other;
  }
}

}  // namespace
}  // namespace pgsled::moving
