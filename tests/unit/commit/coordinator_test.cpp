#include "common/commit/coordinator.hpp"

#include <gtest/gtest.h>

namespace pgsled::commit {
namespace {

constexpr const char* id = "0123456789abcdef0123456789abcdef";
constexpr const char* mark = "1a_2b_3c";

std::string sent(const std::vector<action>& actions, std::uint32_t shard) {
  for (const action& one : actions) {
    if (one.what == action::kind::send && one.shard == shard) return one.sql;
  }
  return {};
}
const action* answer(const std::vector<action>& actions) {
  for (const action& one : actions) {
    if (one.what == action::kind::answer) return &one;
  }
  return nullptr;
}

TEST(Name, GidBothWays) {
  const name of{7, mark, id, "Café's_db"};
  const auto gid = make_gid(of, 3);
  ASSERT_TRUE(gid);
  EXPECT_EQ(*gid, std::string("pgsled_7_3_1a_2b_3c_") + id + "_Caf%c3%a9%27s_db");
  const auto read = parse_gid(*gid);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->of, of);
  EXPECT_EQ(read->participant, 3U);
}

TEST(Name, WhatIsNotOneIsRefused) {
  EXPECT_EQ(make_gid({0, mark, id, std::string(150, 'x')}, 1).error().sqlstate, "0A000");
  EXPECT_FALSE(make_gid({0, "1_2_3'; DROP", id, "x"}, 1));
  for (const char* text : {"", "pgsled_", "pgsled_1_2_3_4_5_6_x", "other_0_1_1a_2b_3c_x_y",
                           "pgsled_99999999999_0_1_2_3_0123456789abcdef0123456789abcdef_x",
                           "pgsled_0_1_1_2_3_0123456789abcdef0123456789abcdef_%2"}) {
    EXPECT_FALSE(parse_gid(text)) << text;
  }
}

TEST(Choice, TheOneThatCannotBePreparedDecides) {
  const auto made = choose({{0, true, {}}, {1, false, {}}, {2, false, "it has a temporary table"},
                            {3, true, {}}});
  ASSERT_TRUE(made);
  EXPECT_EQ(made->coordinator, 2U);
  EXPECT_EQ(made->prepared, (std::vector<std::uint32_t>{0, 3}));
  EXPECT_EQ(made->readers, (std::vector<std::uint32_t>{1}));
}

TEST(Choice, TwoThatCannotBePreparedAreRefusedWithBothCauses) {
  const auto made = choose({{0, true, "it has sent NOTIFY"}, {1, true, "it has a cursor"}});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().sqlstate, "0A000");
  EXPECT_NE(made.error().message.find("it has sent NOTIFY"), std::string::npos);
  EXPECT_NE(made.error().message.find("it has a cursor"), std::string::npos);
}

TEST(Coordinator, OneWriterNeedsNoPhases) {
  coordinator made(*choose({{0, false, {}}, {1, true, {}}}), "app", id);
  auto to = made.begin(0);
  EXPECT_EQ(sent(to, 0), "COMMIT");
  EXPECT_EQ(sent(to, 1), "");         // not before the reader has, which may fail
  to = made.completed(0, "COMMIT", "", 1);
  EXPECT_EQ(sent(to, 1), "COMMIT");
  to = made.completed(1, "COMMIT", "", 2);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "");
  EXPECT_TRUE(made.over());
}

class TwoWriters : public ::testing::Test {
 protected:
  coordinator made{*choose({{0, true, {}}, {1, true, {}}, {2, true, {}}}), "app", id};
  std::vector<action> to;
  void prepare() {
    to = made.begin(0);
    to = made.completed(0, "SELECT 1", mark, 1);
  }
  void decide() {
    prepare();
    made.completed(1, "PREPARE TRANSACTION", "", 2);
    to = made.completed(2, "PREPARE TRANSACTION", "", 3);
  }
};

TEST_F(TwoWriters, Commit) {
  prepare();
  EXPECT_NE(sent(to, 1).find("PREPARE TRANSACTION 'pgsled_0_1_1a_2b_3c_"), std::string::npos);
  EXPECT_NE(sent(to, 1).find("synchronous_commit"), std::string::npos);
  EXPECT_EQ(sent(made.completed(1, "PREPARE TRANSACTION", "", 2), 0), "");
  EXPECT_TRUE(made.may_cancel());
  to = made.completed(2, "PREPARE TRANSACTION", "", 3);
  EXPECT_NE(sent(to, 0).find("pgsled.decide('1a_2b_3c_"), std::string::npos);
  EXPECT_TRUE(sent(to, 0).ends_with("; COMMIT"));
  EXPECT_FALSE(made.may_cancel());
  to = made.completed(0, "COMMIT", "", 4);
  EXPECT_EQ(sent(to, 2).rfind("COMMIT PREPARED 'pgsled_0_2_", 0), 0U);
  EXPECT_EQ(answer(to), nullptr);     // not before all show it
  made.completed(1, "COMMIT PREPARED", "", 5);
  to = made.completed(2, "COMMIT PREPARED", "", 5);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->warning, "");
  EXPECT_TRUE(made.over());
}

TEST_F(TwoWriters, AnyOtherTagIsAnAbort) {
  prepare();
  made.completed(1, "PREPARE TRANSACTION", "", 2);
  to = made.completed(2, "ROLLBACK", "", 3);
  EXPECT_EQ(sent(to, 0), "ROLLBACK");
  EXPECT_EQ(sent(to, 1).rfind("ROLLBACK PREPARED", 0), 0U);
  made.completed(0, "ROLLBACK", "", 4);
  to = made.completed(1, "ROLLBACK PREPARED", "", 4);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "40000");
}

TEST_F(TwoWriters, TheServersErrorIsTheClients) {
  prepare();
  to = made.failed(1, {"23505", "duplicate key", "", ""}, 2);
  EXPECT_EQ(sent(to, 0), "ROLLBACK");
  EXPECT_EQ(sent(to, 1), "ROLLBACK");
  // A vote that comes after the abort is taken back.
  to = made.completed(2, "PREPARE TRANSACTION", "", 3);
  EXPECT_EQ(sent(to, 2).rfind("ROLLBACK PREPARED", 0), 0U);
  made.completed(0, "ROLLBACK", "", 4);
  made.completed(1, "ROLLBACK", "", 4);
  to = made.completed(2, "ROLLBACK PREPARED", "", 4);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.message, "duplicate key");
}

TEST_F(TwoWriters, ADecisionWithoutAnAnswerIsUnknown) {
  decide();
  to = made.lost(0, "reset", 4);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "08007");
  EXPECT_EQ(sent(to, 1), "");   // neither COMMIT nor ROLLBACK PREPARED
  EXPECT_TRUE(made.over());
}

TEST_F(TwoWriters, LostBeforeTheDecisionIsDefinite) {
  prepare();
  to = made.lost(0, "reset", 2);
  made.completed(1, "PREPARE TRANSACTION", "", 3);
  made.completed(1, "ROLLBACK PREPARED", "", 3);
  to = made.lost(2, "reset", 3);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "08006");
}

TEST_F(TwoWriters, DecidedIsAnsweredAfterABound) {
  decide();
  made.completed(0, "COMMIT", "", 10);
  to = made.completed(1, "COMMIT PREPARED", "", 11);
  EXPECT_EQ(answer(made.tick(2009)), nullptr);
  to = made.tick(made.next_tick());
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "");
  EXPECT_NE(answer(to)->warning.find("shard 2"), std::string::npos);
  EXPECT_TRUE(made.over());
}

TEST_F(TwoWriters, AnErrorAfterTheDecisionIsNoneToTheClient) {
  decide();
  made.completed(0, "COMMIT", "", 10);
  made.failed(1, {"42704", "no such prepared transaction", "", ""}, 11);   // a resolver was there
  to = made.failed(2, {"42501", "permission denied", "", ""}, 12);
  ASSERT_NE(answer(to), nullptr);
  EXPECT_EQ(answer(to)->error.sqlstate, "");
  EXPECT_EQ(answer(to)->warning.find("shard 1"), std::string::npos);
  EXPECT_NE(answer(to)->warning.find("shard 2"), std::string::npos);
}

TEST_F(TwoWriters, OneThatIsBusyIsTriedAgain) {
  decide();
  made.completed(0, "COMMIT", "", 10);
  made.completed(1, "COMMIT PREPARED", "", 11);
  to = made.failed(2, {"55000", "is busy", "", ""}, 12);
  EXPECT_EQ(answer(to), nullptr);
  to = made.tick(made.next_tick());
  EXPECT_EQ(sent(to, 2).rfind("COMMIT PREPARED", 0), 0U);
}

}  // namespace
}  // namespace pgsled::commit
