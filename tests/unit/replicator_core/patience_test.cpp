#include "services/replicator/patience.hpp"

#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

using how = patience::end;

TEST(patience, failures_are_repeated_with_growing_pauses_and_not_for_ever) {
  patience it;
  EXPECT_FALSE(it.due(0));
  it.configure({{"app", 1}});
  std::int64_t now = 0, pause = patience::first_pause;
  for (std::uint32_t tries = 1; tries < patience::most_tries; ++tries) {
    ASSERT_EQ(it.due(now), "app");
    it.ended("app", how::failed, now);
    EXPECT_FALSE(it.due(now + pause - 1));
    EXPECT_EQ(it.next_try("app", now), pause);
    now += pause;
    pause = std::min(pause * 2, patience::longest_pause);
  }
  ASSERT_EQ(it.due(now), "app");
  it.ended("app", how::failed, now);
  EXPECT_FALSE(it.due(now + 1'000'000'000));
  EXPECT_FALSE(it.next_try("app", now));
  it.configure({{"app", 1}});
  EXPECT_FALSE(it.due(now + 1'000'000'000)) << "the same configuration";
  it.configure({{"app", 2}});
  EXPECT_EQ(it.due(now), "app");
}

TEST(patience, what_was_aborted_or_is_needless_is_left_alone) {
  for (const how end : {how::aborted, how::nothing_to_do}) {
    patience it;
    it.configure({{"app", 1}, {"other", 1}});
    it.ended("app", end, 0);
    EXPECT_EQ(it.due(1'000'000'000), "other");
  }
}

TEST(patience, after_one_shard_the_next) {
  patience it;
  it.configure({{"app", 1}});
  it.ended("app", how::done, 100);
  EXPECT_FALSE(it.due(100));
  EXPECT_EQ(it.due(100 + patience::first_pause), "app");
  it.configure({});
  EXPECT_FALSE(it.due(1'000'000));
  it.ended("app", how::failed, 0);   // of a database that is gone
}

TEST(patience, one_that_is_busy_does_not_hold_up_the_others) {
  patience it;
  it.configure({{"app", 1}, {"other", 1}});
  EXPECT_EQ(it.due(0, [](const std::string& name) { return name == "app"; }), "other");
  EXPECT_FALSE(it.due(0, [](const std::string&) { return true; }));
}

}  // namespace
}  // namespace pgsled::replicator
