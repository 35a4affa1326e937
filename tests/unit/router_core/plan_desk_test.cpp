#include "services/router/plan_desk.hpp"

#include <gtest/gtest.h>

#include "common/sql/parse.hpp"

namespace pgsled::router {
namespace {

struct desk_test : ::testing::Test {
  std::vector<plan::answer> answers;
  std::vector<pg_error> errors;
  std::vector<std::string> loads;
  plan_desk desk{callbacks()};
  std::uint64_t next = 1;
  bool named = true;

  plan_desk::callbacks callbacks() {
    plan_desk::callbacks calls;
    calls.answer = [this](const auto&, auto, const plan::answer& made) { answers.push_back(made); };
    calls.error = [this](const auto&, auto, const pg_error& error) { errors.push_back(error); };
    calls.load = [this](const std::string& database) { loads.push_back(database); };
    calls.epoch = [](const std::string&) { return std::uint64_t{77}; };
    calls.named = [this](const std::string&) { return named; };
    return calls;
  }
  void configure(std::int64_t now = 0) {
    plan_desk::definition one;
    one.name = "wide";
    one.shards = 2;
    one.tables = {{"", "users", "id", "bigint"}};
    desk.configure({one}, now);
  }
  static plan::catalog catalog(std::vector<std::string> hiding = {}) {
    plan::catalog made;
    made.loaded = true;
    made.tables.push_back({"public", "users", {"id", "name"}});
    for (auto& name : hiding) made.hides_sharded.insert(name);
    return made;
  }
  void ask(const std::string& sql, std::int64_t now, std::uint32_t deadline = 2000,
           const std::string& database = "wide") {
    plan::request asked;
    asked.database = database;
    asked.user = "ann";
    asked.sql = sql;
    asked.tree = sql::parse_tree(sql).value();
    std::string payload;
    plan::encode(asked, payload);
    bus::envelope got;
    got.header.kind = bus::kind::plan_request;
    got.header.request = next++;
    got.header.deadline_ms = deadline;
    got.payload = as_bytes(payload);
    desk.request("f.0", got, now);
  }
};

TEST_F(desk_test, tables_of_a_database_that_is_not_sharded_stay_as_they_are_while_it_moves) {
  configure();
  ask("CREATE TABLE t (a int)", 1, 2000, "plain");
  EXPECT_EQ(answers.size(), 1u);
  desk.moving("plain", "j1");
  ask("SELECT 1", 2, 2000, "plain");
  ask("CREATE TEMP TABLE t (a int)", 2, 2000, "plain");
  EXPECT_EQ(answers.size(), 3u);
  ask("ALTER TABLE t ADD b int", 3, 2000, "plain");
  ask("SELECT 1; CREATE INDEX ON t (a)", 3, 2000, "plain");
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0].sqlstate, "55006");
  EXPECT_FALSE(errors[0].hint.empty());
  desk.moving("plain", "");
  ask("ALTER TABLE t ADD b int", 4, 2000, "plain");
  EXPECT_EQ(answers.size(), 4u);
}

// What it takes for a database with one place may be one with shards under that name.
TEST_F(desk_test, while_it_is_not_known_which_servers_have_the_name_nothing_is_answered) {
  configure();
  desk.loaded("wide", catalog(), 0, 1);
  named = false;
  ask("SELECT 1", 2, 2000, "plain");
  ask("SELECT 1", 2);
  ask("SELECT 1", 2, 100, "plain");
  desk.tick(50);
  EXPECT_TRUE(answers.empty());
  EXPECT_TRUE(errors.empty());
  desk.tick(150);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].sqlstate, "57P03");
  desk.loaded("wide", catalog(), 160, 170);   // of whichever servers
  EXPECT_TRUE(answers.empty());
  named = true;
  desk.tick(200);
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(desk.waiting(), 0u);
}

TEST_F(desk_test, answers_from_a_loaded_catalog_under_the_askers_epoch) {
  configure();
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_TRUE(desk.loaded("wide", catalog(), 1, 2));
  ask("SELECT name FROM users WHERE id = $1", 10);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].plan.destination, plan::destination::one_shard);
  EXPECT_EQ(answers[0].epoch, 77u);
  EXPECT_EQ(loads.size(), 1u);
}

TEST_F(desk_test, what_needs_the_catalog_waits_for_it_and_gets_an_error_in_time) {
  configure();
  ask("INSERT INTO users VALUES ($1, 'x')", 10);
  EXPECT_TRUE(answers.empty());
  EXPECT_EQ(desk.waiting(), 1u);
  desk.loaded("wide", failure("08006", "no route"), 1, 50);
  EXPECT_EQ(desk.waiting(), 1u) << "tried again in a second";
  desk.tick(1050);
  EXPECT_EQ(loads.size(), 2u);
  desk.tick(1809);
  EXPECT_TRUE(errors.empty());
  desk.tick(1810);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].sqlstate, "57P03");
  EXPECT_NE(errors[0].message.find("no route"), std::string::npos);
  EXPECT_EQ(desk.waiting(), 0u);
}

// What has a name may be a view of all shards, or a function that reads them.
TEST_F(desk_test, any_shard_answers_only_what_the_catalog_knows) {
  configure();
  for (const char* sql : {"SELECT count(*) FROM all_users", "SELECT all_users()"}) ask(sql, 10);
  EXPECT_EQ(desk.waiting(), 2u);
  ask("SELECT 1", 10);
  ask("SHOW work_mem", 10);
  ask("SELECT name FROM users WHERE id = $1", 10);
  EXPECT_EQ(answers.size(), 3u);
  desk.loaded("wide", catalog({"public.all_users"}), 11, 20);
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers[3].plan.destination, plan::destination::refused);
  plan_desk::definition other;   // another table is sharded: a view of it is seen with the next look
  other.name = "wide";
  other.shards = 2;
  other.tables = {{"", "users", "id", "bigint"}, {"", "orders", "id", "bigint"}};
  desk.configure({other}, 30);
  ask("SELECT * FROM all_orders", 40);
  EXPECT_EQ(answers.size(), 5u);
  desk.loaded("wide", catalog({"public.all_orders"}), 41, 50);
  ASSERT_EQ(answers.size(), 6u);
  EXPECT_EQ(answers[5].plan.destination, plan::destination::refused);
}

TEST_F(desk_test, rows_are_not_copied_to_every_shard_of_a_table_that_is_new) {
  configure();
  desk.loaded("wide", catalog(), 1, 2);
  ask("COPY bills FROM STDIN", 10);
  EXPECT_TRUE(answers.empty());
  desk.loaded("wide", catalog(), 11, 12);
  EXPECT_EQ(answers.size(), 1u);
}

TEST_F(desk_test, after_ddl_only_a_catalog_read_later_will_do) {
  configure();
  desk.loaded("wide", catalog(), 1, 2);
  ask("CREATE VIEW v AS SELECT * FROM users", 100);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(answers[0].plan.changes_catalog);
  ask("SELECT * FROM v", 150);
  EXPECT_EQ(answers.size(), 1u) << "v would look like any table";
  EXPECT_EQ(loads.size(), 2u);
  desk.loaded("wide", catalog({"public.v"}), 151, 160);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[1].plan.destination, plan::destination::refused);
  const auto version = desk.version("wide");
  desk.tick(300);
  EXPECT_EQ(loads.size(), 3u) << "soon after";
  EXPECT_FALSE(desk.loaded("wide", catalog({"public.v"}), 300, 310));
  desk.tick(2100);
  EXPECT_EQ(loads.size(), 4u) << "and once more";
  desk.loaded("wide", catalog(), 2100, 2110);
  EXPECT_NE(desk.version("wide"), version);
}

TEST_F(desk_test, what_is_written_to_every_shard_is_so_by_the_catalog_of_that_moment) {
  configure();
  ask("INSERT INTO users_2026 VALUES (1)", 1);
  EXPECT_TRUE(answers.empty()) << "nothing is known yet";
  desk.loaded("wide", catalog(), 2, 3);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].plan.destination, plan::destination::all_shards);
  // Somebody makes it a part of a sharded table.
  ask("INSERT INTO users_2026 VALUES (2)", 10);
  EXPECT_EQ(answers.size(), 1u);
  desk.loaded("wide", catalog({"public.users_2026"}), 11, 12);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[1].plan.destination, plan::destination::refused);
  // A catalog that cannot be read says nothing.
  ask("DELETE FROM others", 20);
  desk.loaded("wide", failure("08006", "no route"), 21, 22);
  desk.tick(1820);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].sqlstate, "57P03");
  EXPECT_EQ(answers.size(), 2u);
}

TEST_F(desk_test, an_old_refusal_is_looked_at_again_once) {
  configure();
  desk.loaded("wide", catalog({"public.v"}), 1, 2);
  ask("SELECT * FROM v", 5000);
  EXPECT_TRUE(answers.empty());
  desk.loaded("wide", catalog(), 5001, 5010);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].plan.destination, plan::destination::any_shard);
  ask("SELECT * FROM users", 5020);
  ASSERT_EQ(answers.size(), 2u) << "a fresh catalog refuses at once";
  EXPECT_EQ(answers[1].plan.destination, plan::destination::refused);
}

TEST_F(desk_test, refused_databases_say_why) {
  configure();
  desk.loaded("wide", catalog(), 1, 2);
  desk.refuse("wide", "the map contradicts");
  ask("SELECT 1", 10);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].message, "the map contradicts");
  desk.refuse("wide", "");
  ask("SELECT 1", 10);
  EXPECT_EQ(answers.size(), 1u);
}

TEST_F(desk_test, a_key_waits_for_the_map_and_what_has_none_does_not) {
  configure();
  desk.loaded("wide", catalog(), 1, 2);
  desk.map_known("wide", false, "shard 1 is down", 3);
  ask("SELECT 1", 10);
  EXPECT_EQ(answers.size(), 1u);
  ask("SELECT name FROM users WHERE id = $1", 10);
  EXPECT_EQ(answers.size(), 1u);
  desk.map_known("wide", true, "", 20);
  EXPECT_EQ(answers.size(), 2u);
  desk.map_known("wide", false, "shard 1 is down", 30);
  ask("SELECT name FROM users WHERE id = $1", 40, 1000);
  desk.tick(2000);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].sqlstate, "57P03");
  EXPECT_NE(errors[0].message.find("shard 1 is down"), std::string::npos);
  EXPECT_EQ(loads.size(), 1u) << "the catalog is not what is missing";
}

TEST_F(desk_test, waiting_requests_are_bounded) {
  configure();
  for (std::size_t i = 0; i < plan_desk::max_waiting + 5; ++i) {
    ask("INSERT INTO users VALUES (1)", 10);
  }
  EXPECT_EQ(desk.waiting(), plan_desk::max_waiting);
  EXPECT_EQ(errors.size(), 5u);
  EXPECT_EQ(errors[0].sqlstate, "53400");
}

TEST_F(desk_test, a_database_that_leaves_the_file_ends_its_waits) {
  configure();
  ask("INSERT INTO users VALUES (1)", 10);
  desk.configure({}, 20);
  desk.tick(21);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_EQ(errors[0].sqlstate, "3D000");
}

TEST_F(desk_test, the_version_names_the_content) {
  configure();
  EXPECT_EQ(desk.version("wide"), 0u);
  desk.loaded("wide", catalog(), 1, 2);
  const auto first = desk.version("wide");
  EXPECT_NE(first, 0u);
  desk.loaded("wide", catalog({"a.b"}), 3, 4);
  EXPECT_NE(desk.version("wide"), first);
  desk.loaded("wide", catalog(), 5, 6);
  EXPECT_EQ(desk.version("wide"), first);
}

}  // namespace
}  // namespace pgsled::router
