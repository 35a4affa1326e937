#include "services/replicator/cluster_definitions.hpp"

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

}  // namespace
}  // namespace pgsled::replicator
