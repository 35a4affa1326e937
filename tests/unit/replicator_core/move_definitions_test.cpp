#include "services/replicator/move_definitions.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

TEST(definitions, what_was_made_changed_and_dropped) {
  const definitions before{{"function f()", "a"}, {"index i", "b"}, {"view v", "c"}};
  const definitions now{{"function f()", "a2"}, {"index i", "b"}, {"trigger t", "d"}};
  EXPECT_THAT(differences(before, now),
              testing::ElementsAre("function f() was changed", "view v was dropped",
                                   "trigger t was made"));
  EXPECT_TRUE(differences(now, now).empty());
}

TEST(definitions, what_makes_rows_fare_otherwise_there) {
  const definitions here{{"index i", "a"}, {"sequence s", "b"}, {"policy p of table t", "c"},
                         {"function f()", "d"}, {"right SELECT on table t of app", ""},
                         {"view v", "e"}};
  const definitions there{{"sequence s", "b2"}, {"policy p of table t", "c2"}, {"view v", "e"},
                          {"trigger g of table t", "f"}, {"view w", "g"},
                          {"right DELETE on table t of app", ""}};
  const auto found = unlike_there(here, there, true);
  EXPECT_THAT(found.wrong,
              testing::ElementsAre("function f() is not there",
                                   "policy p of table t is another one there",
                                   "right SELECT on table t of app is not there",
                                   "trigger g of table t is only there"));
  EXPECT_THAT(found.perhaps, testing::ElementsAre("right DELETE on table t of app is only there"));
  const auto other_version = unlike_there(here, there, false);
  EXPECT_THAT(other_version.perhaps,
              testing::ElementsAre("policy p of table t is another one there",
                                   "right DELETE on table t of app is only there"));
  EXPECT_EQ(other_version.wrong.size(), 3u);
}

}  // namespace
}  // namespace pgsled::replicator
