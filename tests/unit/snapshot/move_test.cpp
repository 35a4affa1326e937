#include "common/snapshot/move.hpp"

#include <gtest/gtest.h>

namespace pgsled::snapshot {
namespace {

TEST(move, a_request_is_what_the_page_says) {
  const auto to = from_json<move_request>(
      R"({"do": "fence", "database": "app", "job": "J", "buckets": [3, 7], "wait_ms": 5000})");
  ASSERT_TRUE(to.has_value()) << to.error().message;
  EXPECT_EQ(to->do_, "fence");
  EXPECT_EQ(to->database, "app");
  EXPECT_EQ(to->job, "J");
  EXPECT_EQ(to->buckets, (std::vector<std::uint32_t>{3, 7}));
  EXPECT_EQ(to->wait_ms, 5000);
  EXPECT_EQ(to_json(*to),
            R"({"do":"fence","database":"app","job":"J","buckets":[3,7],"wait_ms":5000,"to":"",)"
            R"("whole":false,"lost":false})");
  const auto bad = from_json<move_request>(R"({"do": 1})");
  ASSERT_FALSE(bad.has_value());
  EXPECT_NE(bad.error().message.find("\"do\""), std::string::npos);
}

TEST(move, answers_survive_the_round_trip) {
  move_where from;
  from.shards.push_back({1, "::1", 5433, "app_1", "owner", "s\"cret"});
  from.epoch = 7;
  from.buckets = {0, 1, 0, 1};
  from.tables.push_back({"public", "orders", "customer", "bigint", "sha1", true});
  placement::mapping by_list;
  by_list.id = 9;
  by_list.list = {{"7", 1}};
  from.tables.back().mapping = {by_list};
  from.tls.mode = "verify_full";
  from.moving = "J";
  from.manner = {7, false, 1'000'000, 1 << 20, "/opt/pg_dump", 5, 6, 7, 8};
  const auto to = from_json<move_where>(to_json(from));
  ASSERT_TRUE(to.has_value()) << to.error().message;
  EXPECT_EQ(to_json(*to), to_json(from));
  EXPECT_EQ(to->shards.at(0).password, "s\"cret");
  EXPECT_TRUE(to->tables.at(0).by_mapping);
  EXPECT_EQ(to->buckets, from.buckets);
  EXPECT_EQ(to->manner.copies, 7u);
  EXPECT_FALSE(to->manner.binary);
  EXPECT_EQ(to->manner.pg_dump, "/opt/pg_dump");

  const auto both = from_json<cluster_where>(to_json(cluster_where{from, {}, "J", 3}));
  ASSERT_TRUE(both.has_value()) << both.error().message;
  EXPECT_EQ(to_json(both->from), to_json(from));
  EXPECT_EQ(both->epoch, 3u);

  const auto answer = from_json<move_answer>(R"({"epoch": 9, "fence": "F"})");
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->epoch, 9u);
  EXPECT_EQ(answer->fence, "F");
}

}  // namespace
}  // namespace pgsled::snapshot
