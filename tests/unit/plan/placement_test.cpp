#include "common/plan/placement.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>

namespace pgsled::plan {
namespace {

// Made with PgDog's hash function; those within int8 agree with PostgreSQL 15's
// satisfies_hash_partition.
TEST(placement, bigint_vectors) {
  const std::pair<std::int64_t, std::uint64_t> vectors[] = {
      {0, 901916981443598768u}, {1, 11274504255086170040u}, {2, 16968177202474426746u},
      {3, 17225467827229439161u}, {7, 7014080962610971927u}, {42, 12669485132091644514u},
      {100, 16889660449545884249u}, {-1, 288437243775528869u}, {-42, 11966144715350499650u},
      {2147483647, 17701988066039669119u}, {2147483648, 10244051894435199606u},
      {-2147483649, 17701988066039669119u}, {9223372036854775807, 10244051894435199606u},
      {std::numeric_limits<std::int64_t>::min(), 17701988066039669119u}};
  for (const auto& [value, hash] : vectors) EXPECT_EQ(hash_bigint(value), hash) << value;
}

TEST(placement, text_vectors) {
  const std::pair<const char*, std::uint64_t> vectors[] = {
      {"", 18051608080690800806u}, {"a", 17047028206024085342u}, {"abc", 8934288089726683813u},
      {"test", 475486305289575699u}, {"tenant_a", 12397640132925004326u},
      {"hello world!", 3419240062023110876u}, {"0123456789ab", 18118932120903792684u},
      {"0123456789abc", 14442216475819065531u},
      {"The quick brown fox jumps over the lazy dog", 11175731615344884169u}};
  for (const auto& [value, hash] : vectors) EXPECT_EQ(hash_text(value), hash) << value;
}

TEST(placement, uuid_vectors) {
  std::array<std::uint8_t, 16> uuid{};
  EXPECT_EQ(hash_uuid(uuid), 24427445038037925u);
  uuid.fill(0xff);
  EXPECT_EQ(hash_uuid(uuid), 5156523127093460353u);
  uuid = {0xf3, 0xb1, 0xc2, 0xd4, 0x11, 0x11, 0x42, 0x22, 0x83, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0x66};
  EXPECT_EQ(hash_uuid(uuid), 12012032031525039719u);
}

TEST(placement, remainders) {
  const std::array<std::uint32_t, 3> map{0, 1, 2};
  EXPECT_EQ(shard_of(hash_bigint(100), map), 2u);
  EXPECT_EQ(shard_of(hash_bigint(3), map), 1u);
  EXPECT_EQ(shard_of(hash_text("abc"), std::array<std::uint32_t, 3>{5, 6, 7}), 6u);
}

TEST(placement, bigint_from_text) {
  const std::pair<const char*, std::optional<std::int64_t>> cases[] = {
      {"0", 0}, {"-0", 0}, {"+5", 5}, {" \t\n\v\f\r42\r\n ", 42}, {"-42", -42},
      {"9223372036854775807", 9223372036854775807}, {"00000000000000000000000000000012", 12},
      {"-9223372036854775808", std::numeric_limits<std::int64_t>::min()},
      {"9223372036854775808", {}}, {"-9223372036854775809", {}}, {"", {}}, {" ", {}}, {"-", {}},
      {"+", {}}, {"+-5", {}}, {"--5", {}}, {"- 5", {}}, {"5 5", {}}, {"5.0", {}}, {"5e1", {}},
      {"0x10", {}}, {"0b1", {}}, {"0o7", {}}, {"1_000", {}}, {"abc", {}}, {"5a", {}},
      {"\xc2\xa0" "5", {}}};
  for (const auto& [text, value] : cases) EXPECT_EQ(bigint_from_text(text), value) << text;
  EXPECT_EQ(bigint_from_text(std::string_view{"5\0", 2}), std::nullopt);
}

TEST(placement, bigint_from_binary) {
  const std::uint8_t bytes[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
  EXPECT_EQ(bigint_from_binary({bytes, 8}), -2);
  EXPECT_EQ(bigint_from_binary({bytes, 4}), -1);
  EXPECT_EQ(bigint_from_binary({bytes, 2}), -1);
  EXPECT_EQ(bigint_from_binary({bytes + 6, 2}), -2);
  for (std::size_t size : {0u, 1u, 3u, 5u, 6u, 7u}) {
    EXPECT_EQ(bigint_from_binary({bytes, size}), std::nullopt);
  }
}

}  // namespace
}  // namespace pgsled::plan
