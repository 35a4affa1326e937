#include "services/router/shards/map.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

using outcome = map_decision::outcome;
using list = std::vector<std::uint32_t>;

shard_reading empty_shard() {
  shard_reading one;
  one.reached = true;
  return one;
}
shard_reading lost_shard() {
  shard_reading one;
  one.problem = "connection refused";
  return one;
}
shard_reading shard_with(std::uint32_t number, list buckets, std::uint64_t epoch = 1) {
  shard_reading one = empty_shard();
  one.map = stored_map{epoch, number, std::move(buckets)};
  return one;
}

TEST(shard_map, first_service_is_the_identity_and_is_written_everywhere) {
  const auto made = decide("d", {empty_shard(), empty_shard(), empty_shard()});
  EXPECT_EQ(made.what, outcome::known);
  EXPECT_EQ(made.buckets, (list{0, 1, 2}));
  EXPECT_EQ(made.write_to, (list{0, 1, 2}));
  EXPECT_EQ(made.epoch, 1u);
}

TEST(shard_map, while_a_move_is_registered_every_shard_may_hold_a_later_map) {
  auto moving = shard_with(0, {0, 1}, 4);
  moving.map->job = "j";
  EXPECT_EQ(decide("d", {shard_with(0, {0, 1}, 4), lost_shard()}).what, outcome::known);
  const auto made = decide("d", {moving, lost_shard()});
  EXPECT_EQ(made.what, outcome::unknown);
  EXPECT_NE(made.reason.find("shard 1: connection refused"), std::string::npos) << made.reason;
  const auto all = decide("d", {moving, shard_with(1, {1, 1}, 5)});
  EXPECT_EQ(all.what, outcome::known);
  EXPECT_EQ(all.buckets, (list{1, 1}));
  EXPECT_EQ(all.job, "j");
}

TEST(shard_map, first_service_waits_for_every_shard) {
  const auto made = decide("d", {empty_shard(), lost_shard()});
  EXPECT_EQ(made.what, outcome::unknown);
  EXPECT_NE(made.reason.find("shard 1: connection refused"), std::string::npos);
}

TEST(shard_map, a_stored_map_holds_whatever_the_file_adds) {
  const auto made =
      decide("d", {shard_with(0, {0, 1}), shard_with(1, {0, 1}), empty_shard()});
  EXPECT_EQ(made.what, outcome::known);
  EXPECT_EQ(made.buckets, (list{0, 1})) << "shard 2 is joining";
  EXPECT_EQ(made.write_to, (list{2}));
}

TEST(shard_map, one_readable_map_is_enough_when_a_shard_is_down) {
  const auto made = decide("d", {lost_shard(), shard_with(1, {0, 1})});
  EXPECT_EQ(made.what, outcome::known);
  EXPECT_EQ(made.buckets, (list{0, 1}));
  EXPECT_TRUE(made.write_to.empty());
}

TEST(shard_map, a_half_written_first_map_is_completed) {
  const auto made = decide("d", {shard_with(0, {0, 1}), empty_shard()});
  EXPECT_EQ(made.what, outcome::known);
  EXPECT_EQ(made.write_to, (list{1}));
}

TEST(shard_map, the_highest_epoch_wins) {
  const auto made = decide("d", {shard_with(0, {0, 1}, 4), shard_with(1, {1, 0}, 5)});
  EXPECT_EQ(made.what, outcome::known);
  EXPECT_EQ(made.buckets, (list{1, 0}));
  EXPECT_EQ(made.write_to, (list{0}));
}

TEST(shard_map, contradictions_are_refused_with_the_reason) {
  const auto fewer = decide("d", {shard_with(0, {0, 1, 2}), shard_with(1, {0, 1, 2})});
  EXPECT_EQ(fewer.what, outcome::refused);
  EXPECT_NE(fewer.reason.find("names shard 2"), std::string::npos);
  const auto swapped = decide("d", {shard_with(1, {0, 1}), shard_with(0, {0, 1})});
  EXPECT_EQ(swapped.what, outcome::refused);
  EXPECT_NE(swapped.reason.find("says it is shard 1"), std::string::npos);
  const auto split = decide("d", {shard_with(0, {0, 1}, 3), shard_with(1, {1, 0}, 3)});
  EXPECT_EQ(split.what, outcome::refused);
  EXPECT_EQ(decide("d", {shard_with(0, {})}).what, outcome::refused);
}

TEST(shard_map, array_text_both_ways) {
  EXPECT_EQ(buckets_to_text({0, 1, 2}), "{0,1,2}");
  EXPECT_EQ(*buckets_from_text("{0,1,2}"), (list{0, 1, 2}));
  EXPECT_EQ(*buckets_from_text("{}"), list{});
  for (const char* bad :
       {"", "{", "0,1", "{1,}", "{,1}", "{1;2}", "{-1}", "{1,NULL}", "{4294967296}"}) {
    EXPECT_FALSE(buckets_from_text(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace pgsled::router
