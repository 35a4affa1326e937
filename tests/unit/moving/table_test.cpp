#include "common/moving/table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <regex>
#include <set>
#include <sstream>

namespace pgsled::moving {
namespace {

using placement::key_type;
using ::testing::StartsWith;

placing by(key_type type) {
  placing to;
  to.type = type;
  return to;
}

// What PostgreSQL makes of the condition for a hash; its remainder has the sign of the hash, too.
class condition {
 public:
  explicit condition(const std::string& sql) {
    static const std::regex hash(R"(hashint8extended\(\("k"\)::bigint, 8816678312871386365\))");
    static const std::regex by_remainder(
        R"(\(h % (\d+) \+ CASE WHEN h < (-\d+) THEN (\d+) ELSE 0 END\))");
    static const std::regex by_bits(R"(\(h & (\d+)\))");
    constexpr std::string_view any = " = ANY ('{", end = "}'::bigint[])";
    const auto list = sql.find(any);
    if (list == std::string::npos || !sql.ends_with(end)) {
      ADD_FAILURE() << sql;
      return;
    }
    const auto from = list + any.size();
    read(sql.substr(from, sql.size() - end.size() - from));
    const auto text = std::regex_replace(sql.substr(0, list), hash, "h");
    std::smatch found;
    if (std::regex_match(text, found, by_remainder)) {
      modulus_ = std::stoll(found[1].str());
      below_ = std::stoll(found[2].str());
      more_ = std::stoll(found[3].str());
    } else if (std::regex_match(text, found, by_bits)) {
      mask_ = std::stoll(found[1].str());
    } else {
      ADD_FAILURE() << text;
    }
  }

  bool operator()(std::int64_t h) const {
    const std::int64_t got = modulus_ == 0 ? h & mask_ : h % modulus_ + (h < below_ ? more_ : 0);
    return wanted_.contains(got);
  }

 private:
  void read(const std::string& list) {
    std::istringstream from(list);
    for (std::string one; std::getline(from, one, ',');) wanted_.insert(std::stoll(one));
  }

  std::int64_t modulus_ = 0, below_ = 0, more_ = 0, mask_ = 0;
  std::set<std::int64_t> wanted_;
};

// The sum in 64 bits without sign, as PARTITION BY HASH of one column has it.
std::uint64_t bucket(std::int64_t h, std::uint64_t buckets) {
  return (static_cast<std::uint64_t>(h) + 0x49a0'f4dd'15e5'a8e3) % buckets;
}

TEST(table, rows_are_found_by_the_buckets_that_move) {
  std::mt19937_64 chance(1);
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t edge = -0x49a0'f4dd'15e5'a8e3;
  for (const std::uint32_t buckets : {1u, 2u, 3u, 7u, 256u, 768u, 6054u, 65'535u, 65'536u}) {
    selection rows;
    rows.buckets = buckets;
    for (std::uint32_t one = 0; one < buckets; ++one) {
      if (chance() % 3 == 0 && rows.moving.size() + 1 < buckets) rows.moving.push_back(one);
    }
    const condition moves(moves_in_sql(by(key_type::bigint), "\"k\"", rows));
    const std::set<std::uint64_t> moving(rows.moving.begin(), rows.moving.end());
    const auto check = [&](std::int64_t h) {
      ASSERT_EQ(moves(h), moving.contains(bucket(h, buckets))) << h << " of " << buckets;
    };
    for (std::int64_t i = 0; i < 2 * std::int64_t{buckets} + 2; ++i) {
      for (const std::int64_t h : {least + i, edge - i, edge + i, -i, i, most - i}) check(h);
    }
    for (int i = 0; i < 10'000; ++i) check(static_cast<std::int64_t>(chance()));
  }
}

TEST(table, where_all_buckets_move_rows_without_a_key_do_not) {
  EXPECT_EQ(moves_in_sql(by(key_type::varchar), "\"k\"", {1, {0}}), "\"k\" IS NOT NULL");
  EXPECT_EQ(moves_in_sql(by(key_type::uuid), "\"k\"", {3, {0, 1, 2}}), "\"k\" IS NOT NULL");
  EXPECT_THAT(moves_in_sql(by(key_type::uuid), "\"k\"", {3, {0, 1, 1}}),
              StartsWith("(uuid_hash_extended(\"k\", 8816678312871386365) % 3 + CASE"))
      << "two of them";
}

// What no list and no range has is on no shard; without a key nothing is.
TEST(table, lists_go_before_ranges_and_ranges_before_what_is_left) {
  placing some = by(key_type::bigint);
  some.mapping = placement::mapping{
      1, "bigint", {{"5", 2}, {"7", 1}, {"9", 2}}, {{"", "10", false, true, 0}}, -1};
  const std::string listed =
      "(CASE WHEN \"k\" IS NULL THEN NULL::integer WHEN (\"k\")::bigint IN ((E'7')::bigint) THEN 1 "
      "WHEN (\"k\")::bigint IN ((E'5')::bigint, (E'9')::bigint) THEN 2 "
      "WHEN true AND (\"k\")::bigint < (E'10')::bigint THEN 0 ELSE ";
  selection rows{3, {0}, true, 2};
  const auto plain = [](std::string sql) {
    for (std::size_t at; (at = sql.find(" E'")) != std::string::npos;) sql.erase(at, 1);
    return sql;
  };
  EXPECT_EQ(plain(moves_in_sql(some, "\"k\"", rows)), listed + "NULL END) = 2");
  table of;
  of.columns = {{"k", "bigint", 20, -1, false}};
  of.primary = {0};
  of.key = 0;
  of.by = some;
  EXPECT_EQ(plain(where_unplaced(of).value_or("")), listed + "NULL END) IS NULL");
  of.by.mapping->fallback = 1;
  EXPECT_EQ(plain(where_moving(of, rows)), listed + "1 END) = 2");
  EXPECT_FALSE(where_unplaced(of)) << "a primary key is not NULL";
  of.primary.clear();
  EXPECT_EQ(where_unplaced(of), "\"k\" IS NULL");
}

}  // namespace
}  // namespace pgsled::moving
