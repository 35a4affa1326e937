#include "common/placement/rule.hpp"

#include <gmock/gmock.h>

#include <array>
#include <limits>
#include <tuple>

#include "tests/unit/placement/allocations.hpp"

namespace pgsled::placement {
namespace {

using ::testing::ElementsAre;

value number(std::int64_t of) { return {key_type::bigint, of, {}, {}}; }
value words(std::string_view of) { return {key_type::varchar, 0, {}, of}; }
value uuid(std::string_view of) { return {key_type::uuid, 0, *uuid_from_text(of), {}}; }

std::vector<std::string> texts_of(const mapping& from) {
  std::vector<std::string> all;
  for (const auto& flaw : flaws_of(from)) {
    all.push_back((flaw.in_list ? "value " : "range ") + std::to_string(flaw.index) + " " +
                  flaw.text + (flaw.other ? ", " + std::to_string(*flaw.other) : ""));
  }
  return all;
}

TEST(rule, list_then_range_then_default) {
  const mapping from{7, "bigint", {{"5", 3}, {"-1", 2}, {"500", 1}},
                     {{"100", "200", true, true, 1}, {"", "0", false, true, 0},
                      {"400", "", true, false, 2}, {"200", "300", true, true, 0}}, 9};
  EXPECT_THAT(flaws_of(from), ::testing::IsEmpty());
  const mapping_index index{from};
  const std::pair<std::int64_t, std::uint32_t> cases[] = {
      {5, 3}, {-1, 2}, {500, 1}, {-2, 0}, {0, 9}, {99, 9}, {100, 1}, {199, 1}, {200, 0}, {299, 0},
      {300, 9}, {399, 9}, {400, 2}, {501, 2}, {std::numeric_limits<std::int64_t>::min(), 0},
      {std::numeric_limits<std::int64_t>::max(), 2}};
  for (const auto& [key, shard] : cases) EXPECT_EQ(index.find(number(key)), shard) << key;
  EXPECT_EQ(index.find(words("5")), std::nullopt);
  mapping closed = from;
  closed.fallback = -1;
  EXPECT_EQ(mapping_index{closed}.find(number(50)), std::nullopt);
}

TEST(rule, texts_by_their_bytes_and_uuids_in_their_order) {
  const mapping_index text{
      {7, "varchar", {{"m", 4}}, {{"", "m", false, true, 0}, {"m", "", true, false, 1}}, -1}};
  EXPECT_EQ(text.find(words("")), 0u);
  EXPECT_EQ(text.find(words("lzz")), 0u);
  EXPECT_EQ(text.find(words("m")), 4u);
  EXPECT_EQ(text.find(words("ma")), 1u);
  EXPECT_EQ(text.find(words("Z")), 0u);
  EXPECT_EQ(text.find(words("é")), 1u);
  const mapping_index keys{
      {7, "uuid", {{"{A0EEBC999C0B4EF8BB6D6BB9BD380A11}", 2}},
       {{"", "80000000-0000-0000-0000-000000000000", false, true, 0}}, 1}};
  EXPECT_EQ(keys.find(uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")), 2u);
  EXPECT_EQ(keys.find(uuid("7fffffff-ffff-ffff-ffff-ffffffffffff")), 0u);
  EXPECT_EQ(keys.find(uuid("80000000-0000-0000-0000-000000000000")), 1u);
}

TEST(rule, flaws_are_named) {
  EXPECT_THAT(texts_of({0, "bigint", {{"1", 0}, {"one", 0}, {" +1", 1}, {"01", 0}}, {}, -1}),
              ElementsAre("value 1 must be an integer that fits bigint",
                          "value 2 \" +1\" belongs to shard 0 already, 0"));
  EXPECT_THAT(texts_of({0, "uuid", {{"1", 0}}, {}, -1}), ElementsAre("value 0 must be a uuid"));
  EXPECT_THAT(texts_of({0, "bigint", {}, {{"5", "5", true, true, 0},
                                          {"7", "6", true, true, 0},
                                          {"", "", false, false, 0},
                                          {"x", "", true, false, 0}}, -1}),
              ElementsAre("range 0 is empty: start must be less than end",
                          "range 1 is empty: start must be less than end",
                          "range 2 needs start, end or both",
                          "range 3 start and end must be an integer that fits bigint"));
  // Touching is not overlapping; one that spans several overlaps each.
  EXPECT_THAT(texts_of({0, "bigint", {}, {{"0", "5", true, true, 0},
                                          {"5", "9", true, true, 1}}, -1}),
              ElementsAre());
  EXPECT_THAT(texts_of({0, "bigint", {}, {{"2", "3", true, true, 0}, {"0", "9", true, true, 1},
                                          {"5", "6", true, true, 0}, {"9", "", true, false, 0},
                                          {"", "1", false, true, 0}}, -1}),
              ElementsAre("range 4 overlaps another range, 1", "range 1 overlaps another range, 0",
                          "range 2 overlaps another range, 1"));
  EXPECT_THAT(texts_of({0, "bigint", {}, {{"", "5", false, true, 0},
                                          {"", "1", false, true, 0}}, -1}),
              ElementsAre("range 1 overlaps another range, 0"));
}

TEST(rule, what_is_placed_on_a_shard_in_words) {
  mapping m;
  m.type = "bigint";
  m.list = {{"1", 0}, {"5", 1}, {"6", 1}};
  m.ranges = {{"10", "20", true, true, 1}, {"", "0", false, true, 2}, {"90", "", true, false, 2}};
  EXPECT_EQ(places_on(m, 0), "1");
  EXPECT_EQ(places_on(m, 1), "5, 6, from 10 to below 20");
  EXPECT_EQ(places_on(m, 2), "below 0, from 90");
  EXPECT_EQ(places_on(m, 3), "");
  m.fallback = 3;
  EXPECT_EQ(places_on(m, 3), "what no list and no range names");
  for (int i = 100; i < 107; ++i) m.list.emplace_back(std::to_string(i), 0);
  EXPECT_EQ(places_on(m, 0), "1, 100, 101, 102, 103, and 3 more");
}

TEST(rule, a_flawed_mapping_places_nothing) {
  const mapping_index index{{7, "bigint", {{"1", 0}, {"x", 0}}, {}, 3}};
  EXPECT_EQ(index.find(number(1)), std::nullopt);
  EXPECT_EQ(mapping_index({7, "vector", {}, {}, 3}).find(number(1)), std::nullopt);
}

TEST(rule, ids_name_the_content) {
  const mapping one{0, "bigint", {{"1", 0}}, {{"5", "", true, false, 0}}, -1};
  EXPECT_EQ(id_of(one), id_of(one));
  EXPECT_NE(id_of(one), 0u);
  mapping other = one;
  other.list[0].second = 1;
  EXPECT_NE(id_of(other), id_of(one));
  other = one;
  other.ranges[0].has_end = true;
  EXPECT_NE(id_of(other), id_of(one));
  other = one;
  other.fallback = 0;
  EXPECT_NE(id_of(other), id_of(one));
}

// Every statement with a key comes by here.
TEST(rule, from_value_to_shard_without_allocation) {
  const std::array<std::uint32_t, 3> map{0, 1, 2};
  const mapping_index index{
      {7, "bigint", {{"9223372036854775807", 1}}, {{"", "5", false, true, 2}}, -1}};
  const std::string digits = "9223372036854775807", text(100, 'x');
  const std::string some_uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
  const std::string binary("\0\0\0\0\0\0\0\1", 8);
  const std::size_t before = testing::allocations();
  std::uint64_t sum = 0;
  for (const auto& [type, how, bytes] :
       {std::tuple{key_type::bigint, form::text, std::string_view(digits)},
        std::tuple{key_type::bigint, form::binary, std::string_view(binary)},
        std::tuple{key_type::uuid, form::text, std::string_view(some_uuid)},
        std::tuple{key_type::varchar, form::text, std::string_view(text)}}) {
    const auto read = normalise(type, how, bytes, {encoding::utf8, 5});
    sum += shard_of(hash_of(hasher::postgres, *read), map) + index.find(*read).value_or(0);
  }
  const std::size_t after = testing::allocations();
  EXPECT_EQ(after, before);
  EXPECT_GT(sum, 0u);
  EXPECT_GT(before, 0u);
}

TEST(rule, names) {
  for (const auto type : {key_type::bigint, key_type::uuid, key_type::varchar}) {
    EXPECT_EQ(key_type_of(name_of(type)), type);
  }
  for (const auto how : {hasher::postgres, hasher::sha1}) EXPECT_EQ(hasher_of(name_of(how)), how);
  EXPECT_EQ(key_type_of("vector"), std::nullopt);
  EXPECT_EQ(hasher_of("md5"), std::nullopt);
}

TEST(rule, hash_of_each_type) {
  EXPECT_EQ(hash_of(hasher::postgres, number(42)), 12669485132091644514u);
  EXPECT_EQ(hash_of(hasher::postgres, words("abc")), 8934288089726683813u);
  EXPECT_EQ(hash_of(hasher::postgres, uuid("f3b1c2d4-1111-4222-8333-444455556666")),
            12012032031525039719u);
  EXPECT_EQ(hash_of(hasher::sha1, words("abc")), 0x9cd0d89du);
  EXPECT_EQ(hash_of(hasher::sha1, number(19)) % 12, 3u);
}

}  // namespace
}  // namespace pgsled::placement
