#include "common/commit/resolver.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace pgsled::commit {
namespace {

const name of{0, "1a_2b_3c", "0123456789abcdef0123456789abcdef", "app"};

found_prepared prepared(std::uint32_t participant, std::int64_t age) {
  return {*make_gid(of, participant), "owner", age, true};
}
std::vector<shard_findings> found(std::int64_t age) {
  std::vector<shard_findings> made(3);
  for (auto& one : made) one.reached = true;
  made[1].prepared = {prepared(1, age)};
  made[2].prepared = {prepared(2, age)};
  return made;
}
void expect_step(resolution& one, step::kind what, std::uint32_t shard) {
  ASSERT_TRUE(one.next());
  EXPECT_EQ(one.next()->what, what);
  EXPECT_EQ(one.next()->shard, shard);
}

TEST(Resolver, AYoungOneIsLeftToItsCoordinator) {
  const auto made = resolve("app", found(3000));
  ASSERT_EQ(made.size(), 1U);
  EXPECT_FALSE(made[0].next());
  EXPECT_EQ(made[0].state_name(), "in progress");
}

TEST(Resolver, AnOrphanIsSettledBeforeItIsFinished) {
  auto made = resolve("app", found(7000));
  ASSERT_EQ(made.size(), 1U);
  resolution& one = made[0];
  EXPECT_EQ(one.participants(), (std::vector<std::uint32_t>{1, 2}));
  expect_step(one, step::kind::end_backend, 0);
  one.succeeded("");
  expect_step(one, step::kind::settle, 0);
  one.succeeded("commit");   // a commit was in flight and has won
  expect_step(one, step::kind::finish, 1);
  EXPECT_TRUE(one.next()->commit);
  one.failed({"42704", "somebody else did it", "", ""});
  expect_step(one, step::kind::finish, 2);
  one.succeeded("");
  EXPECT_FALSE(one.next());
  EXPECT_TRUE(one.finished());
}

TEST(Resolver, WithoutADecisionNothingIsFinished) {
  auto made = resolve("app", found(7000));
  made[0].succeeded("");
  made[0].failed({"55P03", "lock timeout", "", ""});
  EXPECT_FALSE(made[0].next());
  EXPECT_FALSE(made[0].finished());
  EXPECT_NE(made[0].reason().find("lock timeout"), std::string::npos);
}

TEST(Resolver, OlderThanDecisionsAreKeptIsInDoubt) {
  auto shards = found(25 * 3'600'000);
  EXPECT_EQ(resolve("app", shards)[0].state_name(), "in doubt");
  EXPECT_FALSE(resolve("app", shards)[0].next());
  shards[0].decisions = {{of.key(), outcome::commit, {1, 2}, 25 * 3'600'000}};
  auto made = resolve("app", shards);
  ASSERT_EQ(made.size(), 1U);      // and its row is not forgotten
  expect_step(made[0], step::kind::settle, 0);
}

TEST(Resolver, WhatContradictsItselfIsInDoubt) {
  auto shards = found(7000);
  shards[0].decisions = {{of.key(), outcome::commit, {1}, 7000}};
  EXPECT_EQ(resolve("app", shards)[0].state_name(), "in doubt");
  std::vector<shard_findings> moved(3);
  moved[2].reached = moved[0].reached = true;
  moved[2].prepared = {prepared(1, 7000)};   // the file gives the hosts in another order
  EXPECT_EQ(resolve("app", moved)[0].state_name(), "in doubt");
}

TEST(Resolver, WaitsForTheShardThatDecided) {
  auto shards = found(7000);
  shards[0] = {false, "refused", {}, {}};
  const auto made = resolve("app", shards);
  EXPECT_EQ(made[0].state_name(), "waits for shard");
  EXPECT_FALSE(made[0].next());
}

TEST(Resolver, RowsAreForgottenOnlyWhenAllShardsWereSeen) {
  std::vector<shard_findings> shards(2);
  shards[0] = {true, {}, {}, {{of.key(), outcome::commit, {1}, 26 * 3'600'000}}};
  EXPECT_TRUE(resolve("app", shards).empty());
  shards[1].reached = true;
  auto made = resolve("app", shards);
  ASSERT_EQ(made.size(), 1U);
  expect_step(made[0], step::kind::forget, 0);
}

TEST(Resolver, OtherDatabasesAndOtherNamesAreNotTouched) {
  EXPECT_TRUE(resolve("other", found(7000)).empty());
  std::vector<shard_findings> shards(1);
  shards[0].reached = true;
  shards[0].prepared = {{"pgsled_by hand", "owner", 7000, true}};
  const auto made = resolve("app", shards);
  ASSERT_EQ(made.size(), 1U);
  EXPECT_EQ(made[0].state_name(), "in doubt");
  EXPECT_FALSE(made[0].next());
}

// Whoever asked for less time than usual is not waited for as long as usual.
TEST(Resolver, WhatCanNoLongerBeDecidedIsAnOrphan) {
  const auto gid = [](std::int64_t deadline) {
    const name late_one{0, fmt::format("a_b_{:x}", deadline), std::string(32, '0'), "app"};
    return *make_gid(late_one, 1);
  };
  for (const std::int64_t late : {-5000, 0, 499, 500, 5000}) {
    std::vector<shard_findings> shards(2);
    shards[0].reached = shards[1].reached = true;
    shards[0].now = 1'700'000'000'000;
    shards[1].now = 1'900'000'000'000;   // only the coordinator's clock counts
    shards[1].prepared.push_back({gid(shards[0].now - late), "owner", 100, true});
    const auto made = resolve("app", shards);
    ASSERT_EQ(made.size(), 1u);
    EXPECT_EQ(made[0].what(), late < 500 ? resolution::state::in_progress
                                         : resolution::state::resolving) << late;
    shards[0].now = 0;   // not known
    EXPECT_EQ(resolve("app", shards)[0].what(), resolution::state::in_progress);
  }
}

}  // namespace
}  // namespace pgsled::commit
