#include "services/replicator/cluster/check.hpp"

#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

TEST(widens, what_reads_the_same_as_text) {
  EXPECT_TRUE(widens("integer", "bigint"));
  EXPECT_TRUE(widens("smallint", "integer"));
  EXPECT_TRUE(widens("bigint", "numeric"));
  EXPECT_TRUE(widens("character varying(10)", "text"));
  EXPECT_TRUE(widens("character varying(10)", "character varying(20)"));
  EXPECT_TRUE(widens("text", "character varying"));
  EXPECT_TRUE(widens("public.mood", "public.mood"));
}

TEST(widens, what_could_lose_something) {
  EXPECT_FALSE(widens("bigint", "integer"));
  EXPECT_FALSE(widens("integer", "numeric(5,2)"));
  EXPECT_FALSE(widens("text", "character varying(20)"));
  EXPECT_FALSE(widens("character varying(20)", "character varying(10)"));
  EXPECT_FALSE(widens("character varying", "character varying(10)"));
  EXPECT_FALSE(widens("real", "double precision"));
  EXPECT_FALSE(widens("timestamp without time zone", "timestamp with time zone"));
  EXPECT_FALSE(widens("character(5)", "text"));
}

}  // namespace
}  // namespace pgsled::replicator
