#include "services/router/control/membership.hpp"

#include <gtest/gtest.h>

namespace pgsled::router {
namespace {

snapshot::hello hello_of(const std::string& service, const std::string& instance,
                         const std::string& boot = "b1") {
  snapshot::hello said;
  said.service = service;
  said.instance = instance;
  said.boot = boot;
  return said;
}
using greeting = membership::greeting;

TEST(membership, silence_of_three_seconds_ends_a_member) {
  membership members;
  EXPECT_EQ(members.hello("p", hello_of("pooler", "p"), 0).what, greeting::joined);
  EXPECT_TRUE(members.heard("p", 1000));
  EXPECT_TRUE(members.expire(3999).empty());
  EXPECT_EQ(members.expire(4000), std::vector<std::string>{"p"});
  EXPECT_FALSE(members.heard("p", 4001)) << "must be asked for a new hello";
}

TEST(membership, new_boot_replaces_and_same_boot_repeats) {
  membership members;
  members.hello("f.0", hello_of("frontend", "f.0"), 0);
  const std::uint32_t number = members.find("f.0")->holder;
  members.find("f.0")->sent_epoch = 7;
  EXPECT_TRUE(members.acknowledge("f.0", 7));
  EXPECT_EQ(members.hello("f.0", hello_of("frontend", "f.0"), 5).what, greeting::repeated);
  EXPECT_EQ(members.find("f.0")->acked_epoch, 7u);
  EXPECT_EQ(members.hello("f.0", hello_of("frontend", "f.0", "b2"), 6).what, greeting::replaced);
  EXPECT_EQ(members.find("f.0")->acked_epoch, 0u);
  EXPECT_EQ(members.find("f.0")->holder, number);
}

TEST(membership, hello_must_be_about_its_sender) {
  membership members;
  EXPECT_EQ(members.hello("a", hello_of("pooler", "b"), 0).what, greeting::refused);
  EXPECT_EQ(members.hello("a b", hello_of("pooler", "a b"), 0).what, greeting::refused);
  EXPECT_EQ(members.hello("a", hello_of("spy", "a"), 0).what, greeting::refused);
  EXPECT_EQ(members.hello("", hello_of("pooler", ""), 0).what, greeting::refused);
  EXPECT_TRUE(members.all().empty());
}

TEST(membership, holder_numbers_are_unique_and_run_out_at_1023) {
  membership members;
  std::set<std::uint32_t> seen;
  for (int i = 0; i < 1023; ++i) {
    const std::string name = "f." + std::to_string(i);
    ASSERT_EQ(members.hello(name, hello_of("frontend", name), 0).what, greeting::joined);
    const std::uint32_t number = members.find(name)->holder;
    EXPECT_GE(number, 1u);
    EXPECT_LE(number, max_holder);
    EXPECT_TRUE(seen.insert(number).second);
  }
  EXPECT_EQ(members.hello("more", hello_of("frontend", "more"), 0).what, greeting::refused);
  EXPECT_EQ(members.hello("p", hello_of("pooler", "p"), 0).what, greeting::joined);
  EXPECT_EQ(members.find("p")->holder, 0u);
}

TEST(membership, a_new_router_gives_the_number_that_the_worker_has) {
  membership before, after;
  before.hello("f.0", hello_of("frontend", "f.0"), 0);
  auto said = hello_of("frontend", "f.0");
  EXPECT_EQ((after.hello("f.0", said, 0), after.find("f.0")->holder), before.find("f.0")->holder);
  said = hello_of("frontend", "f.1");
  said.holder = 77;
  after.hello("f.1", said, 0);
  EXPECT_EQ(after.find("f.1")->holder, 77u);
  said = hello_of("frontend", "f.2");
  said.holder = 77;
  after.hello("f.2", said, 0);
  EXPECT_NE(after.find("f.2")->holder, 77u) << "taken";
  EXPECT_EQ(after.holder(77)->hello.instance, "f.1");
}

TEST(membership, acknowledgements_of_what_was_not_sent_do_not_count) {
  membership members;
  members.hello("p", hello_of("pooler", "p"), 0);
  members.find("p")->sent_epoch = 10;
  EXPECT_EQ(members.behind(), std::vector<std::string>{"p"});
  EXPECT_FALSE(members.acknowledge("p", 11));
  EXPECT_FALSE(members.acknowledge("q", 10));
  EXPECT_TRUE(members.acknowledge("p", 10));
  EXPECT_FALSE(members.acknowledge("p", 9));
  EXPECT_TRUE(members.behind().empty());
}

TEST(membership, bye_drains_once_and_is_not_waited_for) {
  membership members;
  members.hello("p", hello_of("pooler", "p"), 0);
  members.find("p")->sent_epoch = 10;
  EXPECT_TRUE(members.bye("p"));
  EXPECT_FALSE(members.bye("p"));
  EXPECT_TRUE(members.behind().empty());
  EXPECT_EQ(members.count("pooler", false), 0u);
  EXPECT_EQ(members.count("pooler", true), 1u);
}

}  // namespace
}  // namespace pgsled::router
