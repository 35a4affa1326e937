#include "common/placement/hash.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "common/placement/rule.hpp"

namespace pgsled::placement {
namespace {

// Made with PgDog's hash function; those within int8 agree with PostgreSQL 15's
// satisfies_hash_partition.
TEST(hash, bigint_vectors) {
  const std::pair<std::int64_t, std::uint64_t> vectors[] = {
      {0, 901916981443598768u}, {1, 11274504255086170040u}, {2, 16968177202474426746u},
      {3, 17225467827229439161u}, {7, 7014080962610971927u}, {42, 12669485132091644514u},
      {100, 16889660449545884249u}, {-1, 288437243775528869u}, {-42, 11966144715350499650u},
      {2147483647, 17701988066039669119u}, {2147483648, 10244051894435199606u},
      {-2147483649, 17701988066039669119u}, {9223372036854775807, 10244051894435199606u},
      {std::numeric_limits<std::int64_t>::min(), 17701988066039669119u}};
  for (const auto& [value, hash] : vectors) EXPECT_EQ(hash_bigint(value), hash) << value;
}

TEST(hash, text_vectors) {
  const std::pair<const char*, std::uint64_t> vectors[] = {
      {"", 18051608080690800806u}, {"a", 17047028206024085342u}, {"abc", 8934288089726683813u},
      {"test", 475486305289575699u}, {"tenant_a", 12397640132925004326u},
      {"hello world!", 3419240062023110876u}, {"0123456789ab", 18118932120903792684u},
      {"0123456789abc", 14442216475819065531u},
      {"The quick brown fox jumps over the lazy dog", 11175731615344884169u}};
  for (const auto& [value, hash] : vectors) EXPECT_EQ(hash_text(value), hash) << value;
}

TEST(hash, uuid_vectors) {
  std::array<std::uint8_t, 16> uuid{};
  EXPECT_EQ(hash_uuid(uuid), 24427445038037925u);
  uuid.fill(0xff);
  EXPECT_EQ(hash_uuid(uuid), 5156523127093460353u);
  uuid = {0xf3, 0xb1, 0xc2, 0xd4, 0x11, 0x11, 0x42, 0x22,
          0x83, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0x66};
  EXPECT_EQ(hash_uuid(uuid), 12012032031525039719u);
}

TEST(hash, remainders) {
  const std::array<std::uint32_t, 3> map{0, 1, 2};
  EXPECT_EQ(shard_of(hash_bigint(100), map), 2u);
  EXPECT_EQ(shard_of(hash_bigint(3), map), 1u);
  EXPECT_EQ(shard_of(hash_text("abc"), std::array<std::uint32_t, 3>{5, 6, 7}), 6u);
}

// PgDog's own vector: 0 … 19 on twelve shards.
TEST(hash, sha1) {
  const unsigned shards[] = {4, 7, 8, 3, 6, 0, 0, 10, 3, 11, 1, 7, 4, 4, 11, 2, 5, 0, 8, 3};
  for (std::int64_t id = 0; id < 20; ++id) EXPECT_EQ(sha1_bigint(id) % 12, shards[id]) << id;
  // The ends of the digests in FIPS 180 and RFC 3174.
  EXPECT_EQ(sha1_text("abc"), 0x9cd0d89du);
  EXPECT_EQ(sha1_text(""), 0xafd80709u);
  std::array<std::uint8_t, 16> zero{};
  EXPECT_EQ(sha1_uuid(zero), sha1_text(std::string_view("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16)));
  EXPECT_EQ(sha1_bigint(-42), sha1_text("-42"));
  EXPECT_EQ(sha1_bigint(std::numeric_limits<std::int64_t>::min()),
            sha1_text("-9223372036854775808"));
}

}  // namespace
}  // namespace pgsled::placement
