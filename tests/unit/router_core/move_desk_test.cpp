#include "services/router/move_desk.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

struct move_test : ::testing::Test {
  struct told_state {
    std::string job, fence;
    std::vector<std::uint32_t> buckets;
    bool operator==(const told_state&) const = default;
  };
  std::vector<std::string> said;          // answers and errors, in order
  std::vector<move_work> works;
  int settles = 0;
  told_state told;
  std::string settled_with;
  move_desk::callbacks::word last;
  bool acknowledged = true, drained = false;
  move_desk desk{callbacks()};

  move_desk::callbacks callbacks() {
    move_desk::callbacks calls;
    calls.answer = [this](const move_desk::asker& to, std::uint64_t epoch,
                          const std::string& fence) {
      said.push_back(std::to_string(to.request) + ": " + std::to_string(epoch) +
                     (fence.empty() ? "" : " fence"));
    };
    calls.error = [this](const move_desk::asker& to, const pg_error& error) {
      said.push_back(std::to_string(to.request) + ": " + error.sqlstate);
    };
    calls.work = [this](const move_work& what) { works.push_back(what); };
    calls.settle = [this](const std::string&, const std::string& other) {
      ++settles;
      settled_with = other;
    };
    calls.tell = [this](const move_desk::callbacks::word& word) {
      told = {word.job, word.fence, word.buckets};
      last = word;
    };
    calls.told = [this] { return acknowledged; };
    calls.drained = [this](const std::string& fence) { return drained && fence == told.fence; };
    calls.late = [](const std::string&) { return std::vector<std::string>{"frontend-1.0"}; };
    return calls;
  }
  void worked(std::int64_t now, const result<bool>& how = true) {
    ASSERT_FALSE(works.empty());
    const auto what = works.back();
    works.pop_back();
    desk.worked(what, how, now);
  }
  void settled(std::int64_t now, std::uint64_t epoch = 5, bool known = true) {
    ASSERT_GT(settles, 0);
    --settles;
    desk.settled("app", known, epoch, "j", now);
  }
  // The job "j" of replicator r1, registered under the requests 1.
  void begun() {
    desk.begin({"r1", 1}, "app", "j", 0);
    worked(1);
    settled(2);
    desk.tick(3);
    ASSERT_EQ(said, std::vector<std::string>{"1: 5"});
    said.clear();
  }
  void fenced() {
    begun();
    desk.fence({"r1", 2}, "app", "j", {3, 4}, 1000, 10);
    worked(11);
    drained = true;
    desk.tick(12);
    ASSERT_EQ(said, std::vector<std::string>{"2: 5 fence"});
    said.clear();
  }
  using texts = std::vector<std::string>;
};

TEST_F(move_test, a_move_is_registered_on_the_shards_and_told_before_it_is_answered) {
  acknowledged = false;
  desk.begin({"r1", 1}, "app", "j", 0);
  EXPECT_EQ(works.back().what, move_work::kind::begin);
  EXPECT_EQ(told, told_state{});
  worked(1);
  EXPECT_EQ(told.job, "j");
  settled(2);
  desk.tick(3);
  EXPECT_TRUE(said.empty());
  acknowledged = true;
  desk.tick(4);
  EXPECT_EQ(said, texts{"1: 5"});
}

TEST_F(move_test, one_job_at_a_time) {
  desk.begin({"r1", 1}, "app", "j", 0);
  desk.begin({"r2", 2}, "app", "k", 0);   // while it is being registered
  EXPECT_EQ(said, texts{"2: 55006"});
  worked(1);
  settled(1);
  desk.tick(1);
  desk.begin({"r2", 3}, "app", "k", 2);
  desk.fence({"r2", 4}, "app", "k", {1}, 100, 2);
  desk.begin({"r2", 5}, "app", "j", 2);   // another replicator goes on with it
  worked(3);
  settled(3);
  desk.tick(3);
  EXPECT_EQ(said, (texts{"2: 55006", "1: 5", "3: 55006", "4: 55006", "5: 5"}));
}

TEST_F(move_test, what_is_registered_nowhere_can_begin_again) {
  desk.begin({"r1", 1}, "app", "j", 0);
  worked(1, failure("08006", "shard 1 is down"));
  desk.begin({"r1", 2}, "app", "k", 2);
  EXPECT_EQ(works.size(), 1u);
  EXPECT_EQ(said, texts{"1: 08006"});
  EXPECT_EQ(told, told_state{});
}

TEST_F(move_test, a_fence_is_told_only_when_it_stands_on_the_shards_and_holds_when_all_are_drained) {
  begun();
  desk.fence({"r1", 2}, "app", "j", {3, 4}, 1000, 10);
  EXPECT_EQ(works.back().what, move_work::kind::set_fence);
  EXPECT_EQ(told.fence, "");
  EXPECT_EQ(desk.fence_of("app"), works.back().fence);   // reading the map must not lift it
  worked(11);
  EXPECT_EQ(told.fence, desk.fence_of("app"));
  EXPECT_EQ(told.buckets, (std::vector<std::uint32_t>{3, 4}));
  desk.tick(500);
  EXPECT_TRUE(said.empty());
  drained = true;
  desk.tick(501);
  EXPECT_EQ(said, texts{"2: 5 fence"});
}

TEST_F(move_test, a_fence_that_nobody_reaches_in_time_is_lifted_before_the_error_is_given) {
  begun();
  desk.fence({"r1", 2}, "app", "j", {3}, 1000, 10);
  worked(11);
  desk.tick(1010);
  EXPECT_EQ(settles, 1);
  EXPECT_NE(told.fence, "");
  EXPECT_EQ(desk.fence_of("app"), "");    // what reads the map now takes it from the shards
  EXPECT_TRUE(said.empty());
  drained = true;                          // too late
  desk.tick(1011);
  settled(1020);
  EXPECT_EQ(said, texts{"2: 55P03"});
  EXPECT_EQ(told, (told_state{"j", "", {}}));
}

TEST_F(move_test, members_hear_of_the_new_map_and_the_end_of_the_fence_together) {
  fenced();
  acknowledged = false;
  desk.lift({"r1", 3}, "app", "j", 20);
  EXPECT_NE(told.fence, "");
  settled(30, 6);
  EXPECT_EQ(told, (told_state{"j", "", {}}));
  desk.tick(31);
  EXPECT_TRUE(said.empty());
  acknowledged = true;
  desk.tick(32);
  EXPECT_EQ(said, texts{"3: 6"});
}

TEST_F(move_test, while_the_map_cannot_be_read_the_fence_stays_up) {
  fenced();
  desk.lift({"r1", 3}, "app", "j", 20);
  settled(30, 0, false);
  EXPECT_NE(told.fence, "");
  desk.tick(500);
  EXPECT_EQ(settles, 0);
  desk.tick(1100);
  EXPECT_EQ(settles, 1);
  settled(1200, 6);
  desk.tick(1201);
  EXPECT_EQ(told.fence, "");
  EXPECT_EQ(said, texts{"3: 6"});
}

TEST_F(move_test, a_fence_nobody_ends_is_lifted_by_itself) {
  fenced();
  desk.tick(12 + move_desk::longest_fence - 1);
  EXPECT_EQ(settles, 0);
  desk.tick(12 + move_desk::longest_fence);
  EXPECT_EQ(settles, 1);
  settled(50'000);
  EXPECT_EQ(told, (told_state{"j", "", {}}));
  desk.lift({"r1", 3}, "app", "j", 50'001);   // the job asks what has become of it
  settled(50'002);
  desk.tick(50'003);
  EXPECT_EQ(said, texts{"3: 5"});
}

TEST_F(move_test, the_fence_of_a_replicator_that_is_gone_is_lifted) {
  fenced();
  desk.gone("r2", 20);
  EXPECT_EQ(settles, 0);
  desk.gone("r1", 20);
  EXPECT_EQ(settles, 1);
  settled(21);
  EXPECT_EQ(told, (told_state{"j", "", {}}));
  EXPECT_TRUE(said.empty());
}

TEST_F(move_test, also_one_that_was_just_being_set) {
  begun();
  desk.fence({"r1", 2}, "app", "j", {3}, 1000, 10);
  desk.gone("r1", 11);
  worked(12);
  EXPECT_EQ(told.fence, "");
  EXPECT_EQ(settles, 1);
  settled(13);
  drained = true;
  desk.tick(14);
  EXPECT_EQ(told, (told_state{"j", "", {}}));
  EXPECT_TRUE(said.empty());
}

TEST_F(move_test, one_that_was_set_on_some_shards_only_is_lifted_there) {
  begun();
  desk.fence({"r1", 2}, "app", "j", {3}, 1000, 10);
  worked(12, failure("08006", "shard 1 is down"));
  EXPECT_EQ(settles, 1);
  EXPECT_TRUE(said.empty());
  settled(13);
  EXPECT_EQ(said, texts{"2: 08006"});
}

TEST_F(move_test, no_end_under_a_fence) {
  fenced();
  desk.end({"r1", 3}, "app", "j", 20);
  EXPECT_EQ(said, texts{"3: 55006"});
  desk.lift({"r1", 4}, "app", "j", 21);
  settled(22);
  desk.tick(22);
  desk.end({"r1", 5}, "app", "j", 23);
  EXPECT_EQ(told.job, "j");
  worked(24);
  EXPECT_EQ(told.job, "");
  desk.tick(25);
  EXPECT_EQ(said, (texts{"3: 55006", "4: 5", "5: 5"}));
  EXPECT_EQ(desk.job_of("app"), "");
}

TEST_F(move_test, a_new_router_goes_on_with_what_is_registered) {
  desk.settled("app", true, 7, "j", 0);
  EXPECT_EQ(told.job, "j");
  desk.fence({"r1", 2}, "app", "j", {3}, 1000, 10);
  worked(11);
  drained = true;
  desk.tick(12);
  EXPECT_EQ(said, texts{"2: 7 fence"});
}

TEST_F(move_test, who_does_not_acknowledge_is_named) {
  begun();
  acknowledged = false;
  desk.lift({"r1", 3}, "app", "j", 20);
  settled(21);
  desk.tick(21 + move_desk::telling_limit);
  EXPECT_EQ(said, texts{"3: 55P03"});
}

// All of "app" to "new": one entry, of which both databases hear.
struct cluster_test : move_test {
  void begun_cluster() {
    desk.begin({"r1", 1}, "app", "j", 0, "new");
    ASSERT_EQ(works.back().other, "new");
    worked(1);
    EXPECT_EQ(settled_with, "new");
    desk.settled("app", true, 1, "j", 2, "new");
    desk.tick(3);
    ASSERT_EQ(said, texts{"1: 1"});
    said.clear();
  }
};

TEST_F(cluster_test, its_fence_is_for_everything_and_falls_with_the_names) {
  begun_cluster();
  EXPECT_EQ(desk.other_of("app"), "new");
  EXPECT_TRUE(desk.in_pair("new"));
  desk.fence({"r1", 2}, "app", "j", {}, 1000, 10, true);
  EXPECT_EQ(works.back().other, "new");
  worked(11);
  EXPECT_TRUE(last.whole);
  EXPECT_EQ(desk.fences(), texts{last.fence});
  drained = true;
  desk.tick(12);
  EXPECT_EQ(said, texts{"2: 1 fence"});
  desk.lift({"r1", 3}, "app", "j", 20);
  EXPECT_TRUE(desk.fences().empty());   // nothing keeps it on the servers
  desk.settled("app", false, 0, "", 21);
  EXPECT_TRUE(last.whole);              // who has the name is not known: it stays up
  desk.tick(2000);
  desk.settled("app", true, 2, "j", 2001, "new");
  EXPECT_FALSE(last.whole);
  EXPECT_EQ(last.fence, "");
  desk.tick(2002);
  EXPECT_EQ(said, (texts{"2: 1 fence", "3: 2"}));
}

TEST_F(cluster_test, a_fence_of_buckets_is_none_of_its_and_the_other_way_round) {
  begun_cluster();
  desk.fence({"r1", 2}, "app", "j", {1}, 1000, 10);
  desk.fence({"r1", 3}, "app", "j", {1}, 1000, 10, true);
  EXPECT_EQ(said, (texts{"2: 22023", "3: 22023"}));
}

TEST_F(cluster_test, both_databases_are_taken) {
  begun_cluster();
  desk.begin({"r2", 2}, "app", "k", 5);
  desk.begin({"r2", 3}, "new", "k", 5);
  desk.begin({"r2", 4}, "third", "k", 5, "new");
  desk.begin({"r2", 5}, "new", "k", 5, "app");
  desk.begin({"r2", 6}, "app", "j", 5, "third");
  EXPECT_EQ(said, (texts{"2: 55006", "3: 55006", "4: 55006", "5: 55006", "6: 55006"}));
  EXPECT_TRUE(works.empty());
  EXPECT_FALSE(desk.in_pair("third"));
}

TEST_F(cluster_test, an_earlier_routers_is_gone_on_with_and_its_end_told_to_both) {
  desk.settled("app", true, 4, "j", 0, "new");
  EXPECT_EQ(last.other, "new");
  EXPECT_EQ(last.job, "j");
  desk.end({"r1", 1}, "app", "j", 1);
  EXPECT_EQ(works.back().other, "new");
  worked(2);
  EXPECT_EQ(last.other, "new");
  EXPECT_EQ(last.job, "");
  EXPECT_FALSE(desk.in_pair("app"));
}

}  // namespace
}  // namespace pgsled::router
