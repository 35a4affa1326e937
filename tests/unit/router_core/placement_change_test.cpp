#include "services/router/control/placement_change.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

config::sharded_table by_list(std::uint32_t shard_of_5) {
  config::sharded_table one{"app", "", "orders", "id"};
  placement::mapping mapping{0, "bigint", {{"5", shard_of_5}}, {}, -1};
  mapping.id = placement::id_of(mapping);
  one.mapping = mapping;
  return one;
}
std::optional<pg_error> placement_change(const config::configuration& before,
                                         const config::configuration& now) {
  return router::placement_change("app", placed_tables(before, "app"), placed_tables(now, "app"),
                                  now.resharding.placed_by_hand);
}
config::configuration with(config::sharded_table one) {
  config::configuration made;
  made.sharded_tables.push_back(std::move(one));
  return made;
}

TEST(placement_change, an_entry_that_moves_is_refused_unless_it_is_vouched_for) {
  EXPECT_FALSE(placement_change(with(by_list(0)), with(by_list(0))));
  auto moved = with(by_list(1));
  const auto why = placement_change(with(by_list(0)), moved);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->message, "database \"app\", table orders: rows with id = 5 are on shard 0 and "
                          "would be looked for on shard 1");
  const auto from = why->hint.find("\"orders="), to = why->hint.find('"', from + 1);
  ASSERT_NE(to, std::string::npos) << why->hint;
  moved.resharding.placed_by_hand = {why->hint.substr(from + 1, to - from - 1)};
  EXPECT_FALSE(placement_change(with(by_list(0)), moved));
  EXPECT_TRUE(placement_change(with(by_list(0)), with(by_list(2)))) << "only that one";
}

TEST(placement_change, what_a_key_is) {
  const config::sharded_table plain{"app", "", "orders", "id"};
  EXPECT_FALSE(placement_change(with(plain), with(plain)));
  EXPECT_TRUE(placement_change(with(plain), with(by_list(0))));
  EXPECT_TRUE(placement_change(with(by_list(0)), with(plain)));
  auto other = plain;
  other.column = "customer";
  EXPECT_TRUE(placement_change(with(plain), with(other)));
  other = plain;
  other.data_type = "uuid";
  EXPECT_TRUE(placement_change(with(plain), with(other)));
  other = plain;
  other.hasher = placement::hasher::sha1;
  EXPECT_TRUE(placement_change(with(plain), with(other)));
  other = plain;
  other.database = "another";
  EXPECT_FALSE(placement_change(with(plain), with(other)));
  EXPECT_FALSE(placement_change(with(plain), config::configuration()));
}

}  // namespace
}  // namespace pgsled::router
