#include "services/replicator/move/definitions.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

TEST(definitions, what_was_made_changed_and_dropped) {
  const definitions before{{"function f()", {"a", ""}}, {"index i", {"b", ""}},
                           {"view v", {"c", ""}}};
  const definitions now{{"function f()", {"a2", ""}}, {"index i", {"b", ""}},
                        {"trigger t", {"d", ""}}};
  EXPECT_THAT(differences(before, now),
              testing::ElementsAre("function f() was changed", "view v was dropped",
                                   "trigger t was made"));
  EXPECT_TRUE(differences(now, now).empty());
}

defined of_table(std::string loose, std::string table = "public.t") {
  return {"", std::move(loose), std::move(table)};
}
defined right(std::string role, bool of_owner = false) {
  return {"", "", "public.t", std::move(role), of_owner};
}
other_shard shard(definitions all) {
  return {std::move(all), {{"PUBLIC", false}, {"app", false}, {"root", true}, {"own", false}},
          {"public.t"}};
}

TEST(definitions, what_makes_rows_fare_otherwise_there) {
  const definitions here{
      {"index i", of_table("a", "")},           {"sequence s", of_table("b", "")},
      {"policy p of table t", of_table("c")},   {"function f()", of_table("d", "")},
      {"function g()", of_table("e", "")},      {"view v", of_table("f", "")},
      {"trigger g of table t", of_table("g")},  {"trigger g of table u", of_table("h", "public.u")}};
  const auto there = shard({{"sequence s", of_table("b2", "")},
                            {"policy p of table t", of_table("c2")},
                            {"function f()", of_table("d2", "")},
                            {"view v", of_table("f2", "")},
                            {"view w", of_table("i", "")},
                            {"rule r of table t", of_table("j")}});
  const auto found = unlike_there(here, there, true);
  EXPECT_THAT(found.wrong, testing::ElementsAre("function f() is another one there",
                                                "policy p of table t is another one there",
                                                "trigger g of table t is not there",
                                                "rule r of table t is only there"));
  EXPECT_THAT(found.perhaps, testing::ElementsAre("function g() is not there",
                                                  "view v is another one there"));
  EXPECT_THAT(unlike_there(here, there, false).wrong,
              testing::ElementsAre("trigger g of table t is not there",
                                   "rule r of table t is only there"));
}

// By what they say: names may be others, as may casts and brackets.
TEST(definitions, constraints_are_known_by_what_they_say) {
  const definitions here{{"constraint one of table t", of_table("CHECKa>0")},
                         {"constraint two of table t", of_table("CHECKb>0")}};
  const auto there = shard({{"constraint other of table t", of_table("CHECKa>0")},
                            {"constraint more of table t", of_table("CHECKc>0")}});
  const auto found = unlike_there(here, there, true);
  EXPECT_THAT(found.wrong, testing::ElementsAre("constraint two of table t is not there",
                                                "constraint more of table t is only there"));
  EXPECT_THAT(found.perhaps, testing::IsEmpty());
  EXPECT_THAT(unlike_there(here, there, false).wrong, testing::IsEmpty());
}

TEST(definitions, rights_of_roles_that_are_there) {
  const definitions here{{"right SELECT on table t of app", right("app")},
                         {"right SELECT on table t of gone", right("gone")},
                         {"right SELECT on table t of own", right("own", true)},
                         {"right SELECT on table t of root", right("root")}};
  const auto found =
      unlike_there(here, shard({{"right DELETE on table t of app", right("app")}}), true);
  EXPECT_THAT(found.wrong, testing::ElementsAre("right SELECT on table t of app is not there"));
  EXPECT_THAT(found.perhaps, testing::ElementsAre("right SELECT on table t of gone is not there",
                                                  "right SELECT on table t of own is not there",
                                                  "right DELETE on table t of app is only there"));
}

}  // namespace
}  // namespace pgsled::replicator
