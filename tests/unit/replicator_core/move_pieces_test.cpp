#include <gtest/gtest.h>

#include "services/replicator/move/pieces.hpp"

namespace pgsled::replicator {
namespace {

using found = std::pair<std::string, std::string>;

TEST(Pieces, WhatWasFilledIsATableAndPerhapsItsRows) {
  EXPECT_EQ(filled_table(R"("public"."t")"), found(R"("public"."t")", "true"));
  EXPECT_EQ(filled_table(R"("public"."t" WHERE "a" = 1 AND "b" = 2)"),
            found(R"("public"."t")", R"("a" = 1 AND "b" = 2)"));
}

TEST(Pieces, ANameMayLookLikeACondition) {
  EXPECT_EQ(filled_table(R"("public"."t WHERE x")"), found(R"("public"."t WHERE x")", "true"));
  EXPECT_EQ(filled_table(R"("s"."t "" WHERE y" WHERE "k" IS NULL)"),
            found(R"("s"."t "" WHERE y")", R"("k" IS NULL)"));
}

}  // namespace
}  // namespace pgsled::replicator
