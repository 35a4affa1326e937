// What the shadow says compared with what PostgreSQL 15 does: each script was run there with psql
// or with messages of the extended protocol, and the values expected here are those it showed.

#include "common/session/shadow.hpp"

#include <gtest/gtest.h>

namespace pgsled::session {
namespace {

// A session: batches of statements as they arrive in one Query (or up to one Sync).
class session_of {
 public:
  explicit session_of(pairs base = {}) : shadow_(table_.intern(std::move(base))) {}

  // `failing`: the batch ends with an error after these statements. The transaction's state is kept
  // here the way the server reports it.
  session_of& query(std::string_view sql, bool failing = false) {
    std::vector<sql::statement> found;
    sql::find_statements(sql, true, found);
    for (const auto& each : found) run(each);
    if (failing) {
      shadow_.failed();
      aborted_ = block_;
    }
    shadow_.ready(aborted_ ? 'E' : block_ ? 'T' : 'I');
    return *this;
  }
  std::string operator[](std::string_view name) const {
    const auto* value = shadow_.current()->find(name);
    return value == nullptr ? "-" : *value;
  }
  bool unknown() { return shadow_.take_connection_unknown(); }

 private:
  void run(const sql::statement& done) {
    std::string_view tag = "OTHER";
    switch (done.effect) {
      case sql::effect::begin: block_ = true; break;
      case sql::effect::commit:
        tag = aborted_ ? "ROLLBACK" : "COMMIT";
        aborted_ = block_ = false;
        break;
      case sql::effect::rollback:
        tag = "ROLLBACK";
        aborted_ = block_ = false;
        break;
      case sql::effect::rollback_to: aborted_ = false; break;
      default: break;
    }
    shadow_.succeeded(done, tag, table_);
  }
  pair_table table_;
  shadow shadow_;
  bool block_ = false, aborted_ = false;
};

TEST(shadow, set_outside_of_a_transaction_stays) {
  session_of s;
  s.query("SET work_mem = '1MB'").query("SET Work_Mem TO '2MB'");
  EXPECT_EQ(s["work_mem"], "='2MB'");
  EXPECT_FALSE(s.unknown());
}

TEST(shadow, commit_keeps_and_rollback_undoes) {
  session_of s;
  s.query("SET a.b = 1").query("BEGIN").query("SET a.b = 2").query("ROLLBACK");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("BEGIN").query("SET a.b = 3").query("COMMIT");
  EXPECT_EQ(s["a.b"], "=3");
}

TEST(shadow, commit_of_a_failed_transaction_is_a_rollback) {
  session_of s;
  s.query("BEGIN").query("SET a.b = 1").query("", true).query("COMMIT");
  EXPECT_EQ(s["a.b"], "-");
  s.query("SET a.b = 2");
  EXPECT_EQ(s["a.b"], "=2") << "the failure is forgotten";
}

TEST(shadow, several_statements_of_one_query_are_one_transaction) {
  session_of s;
  s.query("SET a.b = 1; SELECT 1", true);
  EXPECT_EQ(s["a.b"], "-");
  s.query("SET a.b = 1; SET a.c = 2");
  EXPECT_EQ(s["a.b"] + s["a.c"], "=1=2");
  // COMMIT ends the implicit transaction with a warning; what follows is another.
  s.query("SET a.b = 3; COMMIT; SET a.c = 4; SELECT 1", true);
  EXPECT_EQ(s["a.b"] + s["a.c"], "=3=2");
  s.query("SET a.b = 5; ROLLBACK; SET a.c = 6");
  EXPECT_EQ(s["a.b"] + s["a.c"], "=3=6");
}

TEST(shadow, begin_takes_what_came_before_it_in_the_same_query_along) {
  session_of s;
  s.query("SET a.b = 1; BEGIN").query("ROLLBACK");
  EXPECT_EQ(s["a.b"], "-");
  s.query("BEGIN; SET a.b = 1; COMMIT; SET a.c = 2; SELECT 1", true);
  EXPECT_EQ(s["a.b"] + s["a.c"], "=1-");
}

TEST(shadow, chained_transactions) {
  session_of s;
  s.query("BEGIN; SET a.b = 1; COMMIT AND CHAIN; SET a.b = 2; ROLLBACK");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, savepoints_nest) {
  session_of s;
  s.query("BEGIN").query("SET a.b = 1").query("SAVEPOINT s").query("SET a.b = 2");
  s.query("SAVEPOINT t");
  s.query("SET a.b = 3").query("ROLLBACK TO t");
  EXPECT_EQ(s["a.b"], "=2");
  s.query("SET a.b = 4").query("ROLLBACK TO SAVEPOINT t");
  EXPECT_EQ(s["a.b"], "=2") << "a savepoint outlives ROLLBACK TO";
  s.query("ROLLBACK TO s");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("COMMIT");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, of_savepoints_with_one_name_the_last_counts) {
  session_of s;
  s.query("BEGIN; SET a.b = 1; SAVEPOINT s; SET a.b = 2; SAVEPOINT s; SET a.b = 3; ROLLBACK TO s");
  EXPECT_EQ(s["a.b"], "=2");
  s.query("RELEASE s; ROLLBACK TO s");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("COMMIT");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, released_savepoints_keep_their_changes) {
  session_of s;
  s.query("BEGIN; SAVEPOINT s; SET a.b = 1; SAVEPOINT t; RELEASE SAVEPOINT s; COMMIT");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("BEGIN; SAVEPOINT s; SET a.b = 2; RELEASE s; ROLLBACK");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, rollback_to_heals_a_failed_transaction) {
  session_of s;
  s.query("BEGIN; SET a.b = 1; SAVEPOINT s").query("SET a.b = 2; SELECT 1",
      true).query("ROLLBACK TO s");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("SET a.c = 3").query("COMMIT");
  EXPECT_EQ(s["a.b"] + s["a.c"], "=1=3");
}

TEST(shadow, local_settings_never_reach_it) {
  session_of s;
  s.query("BEGIN; SET a.b = 1; SET LOCAL a.b = 2; SET TRANSACTION READ ONLY; COMMIT");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, reset_goes_back_to_the_start_of_the_session) {
  session_of s(pairs{{"application_name", ":app"}});
  s.query("SET application_name = 'x'").query("SET a.b = 1").query("RESET a.b");
  EXPECT_EQ(s["a.b"], "-");
  EXPECT_FALSE(s.unknown()) << "the connection has its own default, as wanted";
  s.query("RESET application_name");
  EXPECT_EQ(s["application_name"], ":app");
  EXPECT_TRUE(s.unknown()) << "the connection has its own default, not this session's";
  EXPECT_FALSE(s.unknown()) << "said once";
  s.query("SET application_name TO DEFAULT");
  EXPECT_EQ(s["application_name"], ":app");
}

TEST(shadow, says_what_has_to_come_behind_a_reset) {
  using lines = std::vector<std::string>;
  pair_table table;
  const shadow s(table.intern({{"a.b", ":it's"}, {"c", "=1"}, {"role", ":start"}}));
  const auto behind = [&](const char* sql) {
    std::vector<sql::statement> found;
    sql::find_statements(sql, true, found);
    return s.behind(found.at(0));
  };
  EXPECT_EQ(behind("RESET a.b"), lines{"SELECT pg_catalog.set_config('a.b','it''s',false)"});
  EXPECT_EQ(behind("SET c = DEFAULT"), lines{"SET \"c\" TO 1"});
  EXPECT_EQ(behind("SET LOCAL c TO default"), lines{"SET LOCAL \"c\" TO 1"});
  EXPECT_EQ(behind("RESET ALL").size(), 2u) << "the role stays";
  EXPECT_EQ(behind("RESET ROLE").size(), 1u);
  ASSERT_EQ(behind("DISCARD ALL").size(), 3u);
  EXPECT_EQ(behind("DISCARD ALL").back(), "SELECT pg_catalog.set_config('role','start',false)");
  for (const char* sql : {"RESET d", "SET LOCAL c TO 2", "SET c = 2", "SELECT 1", "COMMIT"}) {
    EXPECT_EQ(behind(sql), lines{}) << sql;
  }
}

TEST(shadow, reset_is_transactional) {
  session_of s;
  s.query("SET a.b = 1").query("BEGIN; RESET a.b; ROLLBACK");
  EXPECT_EQ(s["a.b"], "=1");
  s.query("BEGIN; RESET ALL; ROLLBACK");
  EXPECT_EQ(s["a.b"], "=1");
}

TEST(shadow, reset_all_leaves_role_and_authorization_alone) {
  session_of s(pairs{{"application_name", ":app"}, {"role", ":start"}});
  s.query("SET a.b = 1; SET application_name = 'x'; SET SESSION AUTHORIZATION u; SET ROLE r");
  s.query("RESET ALL");
  EXPECT_EQ(s["a.b"], "-");
  EXPECT_EQ(s["application_name"], ":app");
  EXPECT_EQ(s["role"], "=r");
  EXPECT_EQ(s["session_authorization"], "=u");
  EXPECT_TRUE(s.unknown());
  session_of none;
  none.query("SET ROLE r; SET a.b = 1").query("RESET ALL");
  EXPECT_EQ(none["role"] + none["a.b"], "=r-");
  EXPECT_FALSE(none.unknown()) << "the defaults of the connection are those of the session";
  none.query("RESET ROLE");
  EXPECT_EQ(none["role"], "-");
}

TEST(shadow, discard_all_goes_back_to_the_start) {
  session_of s(pairs{{"application_name", ":app"}});
  s.query("SET ROLE r").query("SET a.b = 1").query("SET application_name = 'x'");
  s.query("DISCARD ALL");
  EXPECT_EQ(s["role"] + s["a.b"], "--");
  EXPECT_EQ(s["application_name"], ":app");
  EXPECT_TRUE(s.unknown());
}

TEST(shadow, session_authorization_takes_the_role_back) {
  session_of s;
  s.query("SET ROLE r").query("SET SESSION AUTHORIZATION u");
  EXPECT_EQ(s["role"] + s["session_authorization"], "-=u");
  s.query("SET ROLE r").query("RESET SESSION AUTHORIZATION");
  EXPECT_EQ(s["role"] + s["session_authorization"], "--");
}

TEST(shadow, prepare_transaction_keeps_as_commit_does) {
  session_of s;
  s.query("BEGIN; SET a.b = 1; PREPARE TRANSACTION 'x'");
  EXPECT_EQ(s["a.b"], "=1");
}

}  // namespace
}  // namespace pgsled::session
