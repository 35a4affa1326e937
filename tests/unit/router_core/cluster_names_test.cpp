#include "services/router/names/cluster_names.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

file_cluster cluster(const std::string& name, std::optional<served_record> record = {}) {
  return {name, name.ends_with("_new"), {true, {}, std::move(record), true}};
}
file_cluster away(const std::string& name) {
  return {name, name.ends_with("_new"), {false, "no route", {}, true}};
}
served_record says(const std::string& name, const std::string& other, std::uint64_t epoch) {
  return {name, other, "prod", epoch, 0, {}};
}

// Every history of a pair: begin on either, hand-overs there and back, each completed on the other
// side or not, read with either side away. What is said to be known is so, and whatever a side
// that has the token says is enough.
TEST(cluster_names, no_reading_of_any_history_is_guessed_at) {
  int unknown = 0, known = 0;
  for (int hand_overs = 0; hand_overs <= 4; ++hand_overs) {
    for (int completed = 0; completed <= 1; ++completed) {
      served_record a = says("prod", "prod_new", 1), b = says("prod_new", "prod", 1);
      for (int i = 0; i < hand_overs; ++i) {
        served_record& giver = a.name == "prod" && a.epoch >= b.epoch ? a : b;
        served_record& taker = &giver == &a ? b : a;
        std::swap(giver.name, giver.other);
        ++giver.epoch;
        if (i + 1 == hand_overs && completed == 0) break;   // the next is not given out before
        std::swap(taker.name, taker.other);
        taker.epoch = giver.epoch;
      }
      const bool swapped = hand_overs % 2 == 1;
      for (int reached = 0; reached < 4; ++reached) {
        const bool has_a = (reached & 1) != 0, has_b = (reached & 2) != 0;
        const auto said = decide_names({has_a ? cluster("prod", a) : away("prod"),
                                        has_b ? cluster("prod_new", b) : away("prod_new")});
        SCOPED_TRACE(std::to_string(hand_overs) + " " + std::to_string(completed) + " " +
                     std::to_string(reached));
        EXPECT_TRUE(said.refused.empty());
        const bool holder = (has_a && a.name == "prod") || (has_b && b.name == "prod");
        EXPECT_EQ(said.unknown.empty(), (has_a && has_b) || holder);
        EXPECT_EQ(said.unknown.contains("prod"), said.unknown.contains("prod_new"));
        if (!said.unknown.empty()) {
          ++unknown;
          continue;
        }
        ++known;
        ASSERT_EQ(said.pairs.size(), 1u);
        EXPECT_EQ(said.pairs[0].swapped, swapped);
        EXPECT_EQ(said.pairs[0].database, "prod");
        EXPECT_EQ(said.served("prod"), swapped ? "prod_new" : "prod");
        EXPECT_EQ(said.served("prod_new"), swapped ? "prod" : "prod_new");
      }
    }
  }
  EXPECT_GT(unknown, 0);
  EXPECT_GT(known, 0);
}

TEST(cluster_names, without_records_it_is_as_in_the_file) {
  auto said = decide_names({cluster("prod"), cluster("prod_new"), cluster("third")});
  EXPECT_TRUE(said.pairs.empty() && said.unknown.empty() && said.refused.empty());
  // Only one of the two has begun.
  said = decide_names({cluster("prod", says("prod", "prod_new", 1)), cluster("prod_new")});
  EXPECT_EQ(said.served("prod"), "prod");
  EXPECT_TRUE(said.unknown.empty() && said.refused.empty());
  said = decide_names({cluster("prod"), cluster("prod_new", says("prod_new", "prod", 1))});
  EXPECT_EQ(said.served("prod"), "prod");
  EXPECT_TRUE(said.unknown.empty() && said.refused.empty());
}

TEST(cluster_names, who_is_away_is_unknown_only_where_it_matters) {
  // Nobody for resharding only: nothing can have been handed over.
  auto said = decide_names({away("prod"), away("third")});
  EXPECT_TRUE(said.unknown.empty());
  said = decide_names({away("prod"), away("prod_new"), cluster("third")});
  EXPECT_TRUE(said.unknown.contains("prod") && said.unknown.contains("prod_new"));
  EXPECT_FALSE(said.unknown.contains("third"));
  // One that never took part says nothing of the other.
  said = decide_names({cluster("prod"), away("prod_new")});
  EXPECT_TRUE(said.unknown.empty());
  said = decide_names({away("prod"), cluster("prod_new")});
  EXPECT_TRUE(said.unknown.empty());
}

TEST(cluster_names, who_has_not_been_asked_yet_is_waited_for) {
  file_cluster unasked = away("prod");
  unasked.first.tried = false;
  EXPECT_TRUE(decide_names({unasked, cluster("prod_new")}).unknown.contains("prod"));
  EXPECT_TRUE(decide_names({unasked, cluster("third")}).unknown.empty());
}

TEST(cluster_names, what_the_file_contradicts_is_refused) {
  // The other one is not in the file any more.
  auto said = decide_names({cluster("prod", says("prod_new", "prod", 2))});
  EXPECT_TRUE(said.refused.contains("prod"));
  // A name that is not of the pair.
  said = decide_names({cluster("shop", says("prod_new", "prod", 2)), cluster("prod_new")});
  EXPECT_TRUE(said.refused.contains("shop"));
  // Both have it, of one epoch.
  said = decide_names({cluster("prod", says("prod", "prod_new", 2)),
                       cluster("prod_new", says("prod", "prod_new", 2))});
  EXPECT_TRUE(said.refused.contains("prod") && said.refused.contains("prod_new"));
  // Handed over to servers that know nothing of it: they are others than those.
  said = decide_names({cluster("prod", says("prod_new", "prod", 2)), cluster("prod_new")});
  EXPECT_TRUE(said.refused.contains("prod") && said.refused.contains("prod_new"));
  // Handed over, and its partner has been in another move since.
  said = decide_names({cluster("prod", says("prod_new", "prod", 2)),
                       cluster("prod_new", {{"prod_new", "x", "x", 3, 0, {}}}), cluster("x")});
  EXPECT_TRUE(said.refused.contains("prod") && said.refused.contains("prod_new"));
  // The second shard stands first.
  auto moved = says("prod", "prod_new", 1);
  moved.shard = 1;
  said = decide_names({cluster("prod", moved), cluster("prod_new")});
  EXPECT_TRUE(said.refused.contains("prod"));
}

TEST(cluster_names, once_the_file_is_swapped_everything_fits) {
  const auto said = decide_names({cluster("prod", says("prod", "prod_new", 2)),
                                  cluster("prod_new", says("prod_new", "prod", 2))});
  EXPECT_EQ(said.served("prod"), "prod");
  EXPECT_TRUE(said.refused.empty());
}

TEST(cluster_names, a_registered_move_is_known_by_either_side) {
  auto a = says("prod_new", "prod", 2), b = says("prod_new", "prod", 1);
  b.job = "j";
  const auto said = decide_names({cluster("prod", a), cluster("prod_new", b)});
  ASSERT_EQ(said.pairs.size(), 1u);
  EXPECT_EQ(said.pairs[0], (cluster_pair{"prod", "prod_new", 2, "j", true}));
}

TEST(cluster_names, servers_change_places_and_what_is_of_a_name_stays) {
  config::configuration file;
  const auto host = [&](const std::string& name, std::uint32_t shard, std::uint16_t port) {
    config::database one;
    one.name = name;
    one.database_name = "db";
    one.host = "h";
    one.port = port;
    one.shard = shard;
    one.resharding_only = name == "prod_new";
    file.databases.push_back(one);
  };
  host("prod", 0, 1);
  host("prod_new", 0, 2);
  host("prod_new", 1, 3);
  host("third", 0, 4);
  file.sharded_tables.push_back({"prod_new", "", "t", "id"});
  file.users.emplace_back();
  file.users[0].databases = {"prod"};
  names_decision names;
  EXPECT_EQ(with_names(file, names).databases[0].name, "prod");
  names.pairs.push_back({"prod", "prod_new", 2, "", true});
  const auto made = with_names(file, names);
  EXPECT_EQ(made.databases[0].name, "prod_new");
  EXPECT_TRUE(made.databases[0].resharding_only);
  EXPECT_EQ(made.databases[2].name, "prod");
  EXPECT_EQ(made.databases[2].port, 3);
  EXPECT_FALSE(made.databases[2].resharding_only);
  EXPECT_EQ(made.databases[3].name, "third");
  EXPECT_EQ(made.sharded_tables[0].database, "prod");
  EXPECT_EQ(made.users[0].databases, std::vector<std::string>{"prod"});
}

}  // namespace
}  // namespace pgsled::router
