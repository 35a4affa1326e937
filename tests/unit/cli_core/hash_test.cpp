#include "services/cli/hash.hpp"

#include <gtest/gtest.h>

namespace pgsled::cli {
namespace {

// Vectors agreed with PostgreSQL's satisfies_hash_partition.
TEST(hash, known_vectors) {
  const auto one = place("42", "bigint", 3, 0);
  ASSERT_TRUE(one);
  EXPECT_EQ(one->hash, 12669485132091644514u);
  EXPECT_EQ(one->bucket, 0u);
  EXPECT_EQ(one->shard, 0u);
  EXPECT_EQ(place("42", "bigint", 4, 0)->shard, 2u);
  EXPECT_EQ(render(*one), "hash 12669485132091644514 (0xafd30d9a116a5a62)\nbucket 0\nshard 0\n");
  EXPECT_EQ(place("abc", "varchar", 4, 0)->shard, 1u);
  EXPECT_EQ(place("f3b1c2d4-1111-4222-8333-444455556666", "uuid", 4, 0)->shard, 3u);
  EXPECT_EQ(place("{F3B1C2D4111142228333444455556666}", "uuid", 4, 0)->shard, 3u);
}

TEST(hash, buckets_and_shards) {
  const auto neither = place("42", "bigint", 0, 0);
  ASSERT_TRUE(neither);
  EXPECT_FALSE(neither->bucket || neither->shard);
  const auto buckets = place("42", "bigint", 0, 16);
  EXPECT_EQ(buckets->bucket, 2u);
  EXPECT_FALSE(buckets->shard);
  // With B a multiple of N the shard is the same as without buckets.
  for (const auto* value : {"1", "7", "100", "-1", "-42"}) {
    EXPECT_EQ(place(value, "bigint", 3, 300)->shard, place(value, "bigint", 3, 0)->shard);
  }
  EXPECT_EQ(place("1", "bigint", 3, 16).error().sqlstate, "22023");
}

TEST(hash, refuses_what_is_no_value) {
  EXPECT_EQ(place("x", "bigint", 3, 0).error().sqlstate, "22P02");
  EXPECT_EQ(place("9223372036854775808", "bigint", 3, 0).error().sqlstate, "22P02");
  EXPECT_EQ(place("1", "numeric", 3, 0).error().sqlstate, "22023");
  for (const auto* value :
       {"", "-", "{", "{}", "f3b1c2d4-1111-4222-8333-44445555666",
        "f3b1c2d4-1111-4222-8333-4444555566667",
        "-f3b1c2d4111142228333444455556666", "f3b1c2d4111142228333444455556666-",
        "f3b1c2d4--1111422283334444555566 66", "f3b-1c2d4111142228333444455556666",
        "{f3b1c2d4111142228333444455556666", "g3b1c2d4111142228333444455556666"}) {
    EXPECT_FALSE(place(value, "uuid", 3, 0)) << value;
  }
}

}  // namespace
}  // namespace pgsled::cli
