#include "services/cli/hash.hpp"

#include <gtest/gtest.h>

#include <sstream>

namespace pgsled::cli {
namespace {

// Vectors agreed with PostgreSQL's satisfies_hash_partition.
TEST(hash, known_vectors) {
  const auto one = place("42", {"bigint", "postgres", 3, 0});
  ASSERT_TRUE(one);
  EXPECT_EQ(one->hash, 12669485132091644514u);
  EXPECT_EQ(one->bucket, 0u);
  EXPECT_EQ(one->shard, 0u);
  EXPECT_EQ(place("42", {"bigint", "postgres", 4, 0})->shard, 2u);
  EXPECT_EQ(render(*one), "hash 12669485132091644514 (0xafd30d9a116a5a62)\nbucket 0\nshard 0\n");
  EXPECT_EQ(place("abc", {"varchar", "postgres", 4, 0})->shard, 1u);
  EXPECT_EQ(place("f3b1c2d4-1111-4222-8333-444455556666", {"uuid", "postgres", 4, 0})->shard, 3u);
  EXPECT_EQ(place("{F3B1C2D4111142228333444455556666}", {"uuid", "postgres", 4, 0})->shard, 3u);
}

TEST(hash, buckets_and_shards) {
  const auto neither = place("42", {"bigint", "postgres", 0, 0});
  ASSERT_TRUE(neither);
  EXPECT_FALSE(neither->bucket || neither->shard);
  const auto buckets = place("42", {"bigint", "postgres", 0, 16});
  EXPECT_EQ(buckets->bucket, 2u);
  EXPECT_FALSE(buckets->shard);
  // With B a multiple of N the shard is the same as without buckets.
  for (const auto* value : {"1", "7", "100", "-1", "-42"}) {
    EXPECT_EQ(place(value, {"bigint", "postgres", 3, 300})->shard, place(value, {"bigint", "postgres", 3, 0})->shard);
  }
  EXPECT_EQ(place("1", {"bigint", "postgres", 3, 16}).error().sqlstate, "22023");
}

TEST(hash, refuses_what_is_no_value) {
  EXPECT_EQ(place("x", {"bigint", "postgres", 3, 0}).error().sqlstate, "22P02");
  EXPECT_EQ(place("9223372036854775808", {"bigint", "postgres", 3, 0}).error().sqlstate, "22P02");
  EXPECT_EQ(place("1", {"numeric", "postgres", 3, 0}).error().sqlstate, "22023");
  for (const auto* value :
       {"", "-", "{", "{}", "f3b1c2d4-1111-4222-8333-44445555666",
        "f3b1c2d4-1111-4222-8333-4444555566667",
        "-f3b1c2d4111142228333444455556666", "f3b1c2d4111142228333444455556666-",
        "f3b1c2d4--1111422283334444555566 66", "f3b-1c2d4111142228333444455556666",
        "{f3b1c2d4111142228333444455556666", "g3b1c2d4111142228333444455556666"}) {
    EXPECT_FALSE(place(value, {"uuid", "postgres", 3, 0})) << value;
  }
}

TEST(hash, the_other_hasher) {
  EXPECT_EQ(place("19", {"bigint", "sha1", 12, 0})->shard, 3u);
  EXPECT_EQ(place("19", {"bigint", "md5", 12, 0}).error().sqlstate, "22023");
}

TEST(hash, many_at_once) {
  std::istringstream lines("42\n+42 \nx\n7");
  std::ostringstream out;
  const auto good = place_all(lines, '\n', {"bigint", "postgres", 4, 16}, out);
  ASSERT_TRUE(good);
  EXPECT_FALSE(*good);
  EXPECT_EQ(out.str(), "12669485132091644514 2 2\n12669485132091644514 2 2\ninvalid\n"
                       "7014080962610971927 7 3\n");
  std::istringstream zeros(std::string("a\n\0abc\0", 7));
  std::ostringstream texts;
  EXPECT_EQ(*place_all(zeros, '\0', {"varchar", "postgres", 0, 0}, texts), true);
  EXPECT_NE(texts.str().find("\n8934288089726683813 - -\n"), std::string::npos) << texts.str();
  EXPECT_EQ(place_all(lines, '\n', {"bigint", "postgres", 3, 16}, out).error().sqlstate, "22023");
}

}  // namespace
}  // namespace pgsled::cli
