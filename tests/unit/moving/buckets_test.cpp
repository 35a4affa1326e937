#include "common/moving/buckets.hpp"

#include <gtest/gtest.h>

#include <map>

#include "common/placement/hash.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::moving {
namespace {

TEST(buckets, refining_moves_no_row) {
  for (const bucket_map& from :
       {bucket_map{0, 1}, bucket_map{0, 1, 2}, bucket_map{0, 1, 0, 2, 1}}) {
    const auto to = refined(from, 3);
    EXPECT_GE(to.size(), 64u * 3);
    EXPECT_EQ(to.size() % from.size(), 0u);
    for (std::int64_t key = -3000; key < 3000; ++key) {
      const auto hash = placement::hash_bigint(key);
      ASSERT_EQ(placement::shard_of(hash, to), placement::shard_of(hash, from)) << key;
    }
    EXPECT_EQ(refined(to, 3), to) << "enough are enough";
  }
  EXPECT_EQ(refined(bucket_map(65'000, 0), 2000).size(), 65'000u) << "bounded";
}

TEST(buckets, a_newcomer_gets_its_share_from_each_evenly) {
  bucket_map map{0, 1};
  for (std::uint32_t newcomer = 2; newcomer < 12; ++newcomer) {
    map = refined(map, newcomer + 1);
    const auto moved = for_newcomer(map, newcomer);
    EXPECT_NEAR(static_cast<double>(moved.size()),
                static_cast<double>(map.size()) / (newcomer + 1), 1.0);
    std::map<std::uint32_t, int> given, left;
    for (const auto bucket : moved) ++given[map[bucket]];
    const auto next = with(map, moved, newcomer);
    for (std::size_t i = 0; i < map.size(); ++i) {
      if (next[i] != map[i]) {
        EXPECT_EQ(next[i], newcomer) << "nothing is shuffled";
      }
      ++left[next[i]];
    }
    EXPECT_EQ(given.size(), newcomer);
    int least = 1 << 30, most = 0;
    for (const auto& [shard, count] : left) {
      least = std::min(least, count);
      most = std::max(most, count);
    }
    EXPECT_LE(most - least, 2) << newcomer;
    EXPECT_TRUE(for_newcomer(next, newcomer).empty()) << "it has its share";
    map = next;
  }
}

}  // namespace
}  // namespace pgsled::moving
