// What is said again on a server that joins a transaction.

#include "common/session/script.hpp"

#include <gtest/gtest.h>

namespace pgsled::session {
namespace {

class script_of {
 public:
  script_of& run(std::string_view sql, const std::vector<std::string>& behind = {}) {
    std::vector<sql::statement> found;
    sql::find_statements(sql, true, found);
    for (const auto& each : found) script_.succeeded(each, settings_, behind);
    return *this;
  }
  std::string said() const { return script_.sql(); }
  const script& get() const { return script_; }

 private:
  pair_set_ref settings_ = std::make_shared<const pair_set>();
  script script_;
};

TEST(script, says_modes_savepoints_and_settings_in_order) {
  script_of one;
  one.run("BEGIN READ ONLY").run("SAVEPOINT \"A\"").run("SET LOCAL a.b = '1'; SET work_mem TO 9");
  EXPECT_EQ(one.said(),
            "BEGIN READ ONLY;SAVEPOINT \"A\";SET LOCAL \"a\".\"b\" TO '1';"
            "SET \"work_mem\" TO 9");
  EXPECT_TRUE(one.get().complete());
  one.run("SET CONSTRAINTS ALL DEFERRED").run("SET TRANSACTION READ WRITE");
  EXPECT_TRUE(one.said().ends_with(";SET CONSTRAINTS ALL DEFERRED;SET TRANSACTION READ WRITE"));
}

TEST(script, says_resets_with_what_has_to_come_behind_them) {
  script_of one;
  one.run("BEGIN").run("RESET work_mem").run("RESET SESSION AUTHORIZATION");
  one.run("RESET x.y", {"SET \"x\".\"y\" TO 1"}).run("SET LOCAL x.y TO DEFAULT", {"SET LOCAL a"});
  one.run("RESET ALL", {"b", "c"});
  EXPECT_EQ(one.said(), "BEGIN;RESET \"work_mem\";RESET SESSION AUTHORIZATION;"
                        "RESET \"x\".\"y\";SET \"x\".\"y\" TO 1;"
                        "SET LOCAL \"x\".\"y\" TO DEFAULT;SET LOCAL a;RESET ALL;b;c");
  EXPECT_TRUE(one.get().complete());
}

TEST(script, is_trimmed_as_savepoints_end) {
  script_of one;
  one.run("BEGIN").run("SAVEPOINT a").run("SET x.y = 1").run("SAVEPOINT b").run("SET x.y = 2");
  one.run("SAVEPOINT a").run("ROLLBACK TO b");
  EXPECT_EQ(one.said(), "BEGIN;SAVEPOINT \"a\";SET \"x\".\"y\" TO 1;SAVEPOINT \"b\"");
  one.run("SET x.y = 3").run("RELEASE a");
  EXPECT_EQ(one.said(), "BEGIN;SET \"x\".\"y\" TO 1;SET \"x\".\"y\" TO 3");
  one.run("ROLLBACK TO nothing");
  EXPECT_EQ(one.said(), "BEGIN;SET \"x\".\"y\" TO 1;SET \"x\".\"y\" TO 3");
}

TEST(script, the_innermost_of_savepoints_of_one_name_counts) {
  script_of one;
  one.run("BEGIN; SAVEPOINT a; SET x.y = 1; SAVEPOINT a; SET x.y = 2; ROLLBACK TO a");
  EXPECT_EQ(one.said(), "BEGIN;SAVEPOINT \"a\";SET \"x\".\"y\" TO 1;SAVEPOINT \"a\"");
  one.run("RELEASE a");
  EXPECT_EQ(one.said(), "BEGIN;SAVEPOINT \"a\";SET \"x\".\"y\" TO 1");
}

TEST(script, knows_the_path_that_holds) {
  script_of one;
  one.run("BEGIN");
  EXPECT_EQ(one.get().search_path(), nullptr);
  one.run("SET LOCAL search_path = a, b").run("SAVEPOINT s").run("SET search_path TO \"C\"");
  ASSERT_NE(one.get().search_path(), nullptr);
  EXPECT_EQ(*one.get().search_path(), "\"C\"");
  one.run("SET LOCAL work_mem = 9").run("ROLLBACK TO s");
  ASSERT_NE(one.get().search_path(), nullptr);
  EXPECT_EQ(*one.get().search_path(), "a, b");
  one.run("RESET search_path");
  EXPECT_EQ(*one.get().search_path(), "DEFAULT");
  one.run("SELECT set_config('search_path', $1, true)");
  EXPECT_EQ(*one.get().search_path(), "");
  one.run("SET LOCAL search_path = d").run("RESET ALL");
  EXPECT_EQ(*one.get().search_path(), "DEFAULT");
  one.run("SELECT set_config($1, $2, false)");
  EXPECT_EQ(*one.get().search_path(), "");
  one.run("ROLLBACK TO s");
  EXPECT_EQ(*one.get().search_path(), "a, b");
  EXPECT_FALSE(one.get().complete());
  one.run("ROLLBACK");
  EXPECT_EQ(one.get().search_path(), nullptr);
}

TEST(script, knows_when_it_is_somebody_else) {
  script_of one;
  one.run("BEGIN").run("SET LOCAL work_mem = 9").run("SAVEPOINT s");
  EXPECT_FALSE(one.get().changes_role());
  one.run("SET LOCAL ROLE a");
  EXPECT_TRUE(one.get().changes_role());
  one.run("ROLLBACK TO s");
  EXPECT_FALSE(one.get().changes_role());
  one.run("SET SESSION AUTHORIZATION b");
  EXPECT_TRUE(one.get().changes_role());
  one.run("COMMIT");
  EXPECT_FALSE(one.get().changes_role());
}

TEST(script, a_path_is_not_known_once_there_was_no_room_for_a_savepoint) {
  script_of one;
  one.run("BEGIN").run("SET LOCAL search_path = a");
  const std::string long_one = "SET LOCAL x.y = '" + std::string(script::max_bytes / 2, 'x') + "'";
  one.run(long_one).run(long_one);
  EXPECT_EQ(*one.get().search_path(), "");
  one.run("SET LOCAL search_path = b");
  EXPECT_EQ(*one.get().search_path(), "");
  one.run("COMMIT").run("BEGIN");
  EXPECT_EQ(one.get().search_path(), nullptr);
  // However often it is computed, it takes one line.
  for (int i = 0; i < 1000; ++i) one.run("SELECT set_config('search_path', $1, true)");
  EXPECT_EQ(one.said(), "BEGIN");
}

TEST(script, a_second_begin_changes_nothing_and_the_end_ends_it) {
  script_of one;
  one.run("SAVEPOINT a");
  EXPECT_FALSE(one.get().open());
  one.run("BEGIN").run("BEGIN READ ONLY");
  EXPECT_EQ(one.said(), "BEGIN");
  one.run("COMMIT");
  EXPECT_FALSE(one.get().open());
  one.run("START TRANSACTION").run("ROLLBACK");
  EXPECT_FALSE(one.get().open());
}

TEST(script, knows_whether_a_chain_begins_as_its_begin_says) {
  EXPECT_FALSE(script_of().get().begins_alike());
  EXPECT_EQ(script_of().run("BEGIN READ ONLY").get().begin(), "BEGIN READ ONLY");
  EXPECT_TRUE(script_of().run("BEGIN READ ONLY").run("SET LOCAL a.b = 1").get().begins_alike());
  for (const auto* mode : {"SET TRANSACTION READ ONLY", "SET LOCAL transaction_isolation = 'x'",
                           "SET transaction_read_only = on"}) {
    script_of one;
    EXPECT_FALSE(one.run("BEGIN").run(mode).get().begins_alike()) << mode;
    EXPECT_TRUE(one.run("ROLLBACK").run("BEGIN").get().begins_alike()) << mode;
  }
}

TEST(script, knows_when_it_does_not_know_all) {
  EXPECT_FALSE(script_of().run("BEGIN").run("SELECT set_config($1, 'a', true)").get().complete());
  script_of one;
  one.run("BEGIN");
  const std::string value(40'000, 'x');
  one.run("SET LOCAL a.b = '" + value + "'");
  EXPECT_TRUE(one.get().complete());
  EXPECT_FALSE(one.get().has_room(value.size()));
  one.run("SET LOCAL a.b = '" + value + "'");
  EXPECT_FALSE(one.get().complete());
}

}  // namespace
}  // namespace pgsled::session
