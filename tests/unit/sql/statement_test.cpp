#include "common/sql/setting_calls.hpp"
#include "common/sql/statement.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <ostream>

namespace pgsled::sql {

void PrintTo(effect e, std::ostream* out) { *out << static_cast<int>(e); }

namespace {

struct statement_case {
  const char* sql;
  sql::effect effect;
  const char* name = "";
  const char* value = "";
};

using enum effect;

const statement_case cases[] = {
    {"SELECT 1", none},
    {"SELECT x FROM t WHERE x = 'set_config'", none},
    {"SELECT set_config FROM t", none},
    {"SELECT 'a;b', \"c;d\", $$ ; $$ /* ; */ -- ;\n", none},
    {"SELECT temp FROM t", none},
    {"INSERT INTO temp VALUES (1)", none},
    {"INSERT INTO temporary SELECT 1", none},
    {"(SELECT 1)", none},
    {"begin", begin, "", "begin"}, {"BEGIN WORK", begin, "", "BEGIN WORK"},
    {"BEGIN ISOLATION LEVEL SERIALIZABLE", begin, "", "BEGIN ISOLATION LEVEL SERIALIZABLE"},
    {"START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", begin, "",
     "START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"},
    {"COMMIT", commit}, {"END", commit}, {"commit and chain", commit}, {"END WORK", commit},
    {"PREPARE TRANSACTION 'x'", commit},
    {"COMMIT PREPARED 'x'", none}, {"ROLLBACK PREPARED 'x'", none},
    {"ROLLBACK", rollback}, {"ABORT", rollback}, {"ROLLBACK AND CHAIN", rollback},
    {"ROLLBACK TRANSACTION AND NO CHAIN", rollback},
    {"SAVEPOINT a", savepoint, "a"}, {"savepoint \"A\"\"b\"", savepoint, "A\"b"},
    {"RELEASE A", release, "a"}, {"RELEASE SAVEPOINT a", release, "a"},
    {"RELEASE savepoint", release, "savepoint"},
    {"ROLLBACK TO a", rollback_to, "a"}, {"ROLLBACK TO SAVEPOINT x", rollback_to, "x"},
    {"ROLLBACK WORK TO SAVEPOINT x", rollback_to, "x"},
    {"ROLLBACK TRANSACTION TO savepoint", rollback_to, "savepoint"},
    {"SET a = b", set, "a", "b"}, {"SET a TO 'B'", set, "a", "'B'"},
    {"SET SESSION A.b TO 5", set, "a.b", "5"}, {"SET a TO DEFAULT", reset, "a"},
    {"SET search_path = a, \"B\" , c", set, "search_path", "a, \"B\" , c"},
    {"SET search_path = pg_temp, a", pin},
    {"SET LOCAL search_path = pg_temp, a", pin},
    {"SET LOCAL a = 1", set_local, "a", "1"}, {"SET LOCAL ROLE x", set_local, "role", "x"},
    {"SET LOCAL a TO DEFAULT", set_local, "a", "DEFAULT"},
    {"SET TIME ZONE 'UTC'", set, "timezone", "'UTC'"}, {"SET TIME ZONE LOCAL", reset, "timezone"},
    {"SET TIME ZONE -7", set, "timezone", "-7"},
    {"SET TIME ZONE INTERVAL '+1' HOUR TO MINUTE", pin},
    {"SET TIMEZONE TO 'UTC'", set, "timezone", "'UTC'"},
    {"SET NAMES 'utf8'", set, "client_encoding", "'utf8'"}, {"SET NAMES", reset, "client_encoding"},
    {"SET SCHEMA 'x'", set, "search_path", "'x'"},
    {"SET ROLE NONE", set, "role", "NONE"}, {"SET SESSION ROLE x", set, "role", "x"},
    {"SET role TO x", set, "role", "x"},
    {"SET SESSION AUTHORIZATION bob", set, "session_authorization", "bob"},
    {"SET SESSION SESSION AUTHORIZATION bob", set, "session_authorization", "bob"},
    {"SET LOCAL SESSION AUTHORIZATION bob", set_local, "session_authorization", "bob"},
    {"SET SESSION AUTHORIZATION DEFAULT", reset, "session_authorization"},
    {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", pin, "characteristics"},
    {"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", set_local, "transaction",
     "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"},
    {"SET CONSTRAINTS ALL DEFERRED", set_local, "constraints", "SET CONSTRAINTS ALL DEFERRED"},
    {"SET XML OPTION DOCUMENT", set, "xmloption", "DOCUMENT"},
    {"SET a FROM CURRENT", pin}, {"SET CATALOG 'x'", pin},
    {"RESET a", reset, "a"}, {"RESET A.B", reset, "a.b"}, {"RESET ALL", reset_all},
    {"RESET ROLE", reset, "role"}, {"RESET TIME ZONE", reset, "timezone"},
    {"RESET SESSION AUTHORIZATION", reset, "session_authorization"},
    {"DISCARD ALL", discard_all}, {"DISCARD TEMP", none}, {"DISCARD PLANS", none},
    {"DISCARD SEQUENCES", none},
    {"LISTEN x", pin}, {"UNLISTEN *", none}, {"NOTIFY x", none}, {"LOAD 'x'", pin},
    {"PREPARE x AS SELECT 1", pin}, {"PREPARE x(int) AS SELECT 1", pin},
    {"PREPARE transaction AS SELECT 1", pin}, {"PREPARE transaction (int) AS SELECT 1", pin},
    {"DEALLOCATE x", deallocate, "x"}, {"DEALLOCATE PREPARE \"X\"", deallocate, "X"},
    {"DEALLOCATE ALL", deallocate}, {"DEALLOCATE PREPARE ALL", deallocate},
    {"DEALLOCATE", none}, {"DEALLOCATE x, y", none}, {"DEALLOCATE ALL y", none},
    {"DEALLOCATE PREPARE", deallocate, "prepare"}, {"DEALLOCATE PREPARE x y", none},
    {"EXECUTE x(1)", none},
    {"CREATE TEMP TABLE t (a int)", pin}, {"CREATE TEMPORARY VIEW v AS SELECT 1", pin},
    {"CREATE LOCAL TEMP TABLE t (a int)", pin}, {"CREATE GLOBAL TEMPORARY TABLE t (a int)", pin},
    {"CREATE OR REPLACE TEMP VIEW v AS SELECT 1", pin}, {"CREATE TEMP SEQUENCE s", pin},
    {"CREATE UNLOGGED TABLE t (a int)", none}, {"CREATE TABLE temp (a int)", none},
    {"CREATE TABLE pg_temp.t (a int)", pin}, {"CREATE TABLE \"pg_temp\".t (a int)", pin},
    {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT set_config('a','b',false); SELECT 1 $$", none},
    {"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END", none},
    {"CREATE PROCEDURE f() BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT 1 AS end; END", none},
    {"CREATE PROCEDURE f() BEGIN ATOMIC END", none},
    {"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", none},
    {"SELECT 1 INTO TEMP x", pin}, {"SELECT a INTO LOCAL TEMPORARY TABLE x FROM t", pin},
    {"SELECT a INTO TEMPORARY x FROM t", pin}, {"SELECT a INTO x FROM t", none},
    {"WITH q AS (INSERT INTO temp VALUES (1) RETURNING *) SELECT * FROM q", none},
    {"DECLARE c CURSOR FOR SELECT 1", none}, {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", pin},
    {"DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", none},
    {"SELECT pg_advisory_lock(1)", pin}, {"SELECT pg_try_advisory_lock_shared(1, 2)", pin},
    {"SELECT pg_catalog.PG_ADVISORY_LOCK (1)", pin}, {"SELECT \"pg_advisory_lock\"(1)", pin},
    {"SELECT pg_advisory_lock_shared(1) FROM t", pin},
    {"SELECT pg_advisory_xact_lock(1)", none}, {"SELECT pg_try_advisory_xact_lock(1)", none},
    {"SELECT pg_advisory_unlock_all()", none}, {"SELECT pg_advisory_unlock(5)", none},
    {"SELECT 'pg_advisory_lock(1)'", none},
    {"SELECT U&\"set\\005fconfig\"('a','b',false)", pin},
    {"SELECT set_config('A.b', 'it''s', false)", set, "a.b", "'it''s'"},
    {"SELECT pg_catalog.set_config('a', 'b', false)", set, "a", "'b'"},
    {"SELECT set_config('a', 'b', true)", set_local, "a", "'b'"},
    {"SELECT set_config('transaction_isolation', 'serializable', false)", set_local,
     "transaction_isolation", "'serializable'"},
    {"SET transaction_isolation = 'serializable'", set_local, "transaction_isolation",
     "'serializable'"},
    {"SET SESSION transaction_read_only TO on", set_local, "transaction_read_only", "on"},
    {"SET transaction_timeout = 5", set, "transaction_timeout", "5"},
    {"SET search_path TO 'PG_temp', public", pin},
    {"SET LOCAL search_path = 'pg_temp'", pin},
    {"SET LOCAL TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE", set_local},
    {"SET LOCAL TIME ZONE LOCAL", set_local, "timezone", "DEFAULT"},
    {"SELECT set_config('search_path', 'a, b', false)", set, "search_path", "\"a\", \"b\""},
    {"SELECT set_config('search_path', '\"$user\",  Public', true)", set_local, "search_path",
     "\"$user\", \"public\""},
    {"SELECT set_config('search_path', 'a \"b\"', true)", set_local},
    {"SELECT set_config('search_path', '\"a\"\"b\"', true)", set_local},
    {"SELECT set_config('search_path', 'a-b', true)", set_local},
    {"SELECT set_config('search_path', 'a,', false)", pin},
    {"SELECT set_config('search_path', '\"a', false)", pin},
    {"SELECT set_config('search_path', 'it''s', true)", set_local},
    {"SELECT set_config('search_path', '', false)", set, "search_path", "''"},
    {"SELECT set_config($1, $2, false)", pin}, {"SELECT set_config($1, $2, $3)", pin},
    {"SELECT set_config($1, f($2, 3), true), x FROM t", set_local},
    {"SELECT set_config('a', 'b', not true)", pin}, {"SELECT set_config('a', 'b', true OR true)", pin},
    {"SELECT set_config('a','1',false), set_config('b','2',false)", set, "a", "'1'"},
    {"SELECT set_config('a','1',false), set_config('b',f(2),false)", pin},
    {"SELECT set_config('a','1',true), set_config('b',f(2, 3),true)", set_local},
    {"SELECT set_config('a', set_config('b', '1', true), false)", pin},
    {"SELECT set_config('a', set_config('b', '1', false), true)", pin},
    {"SELECT set_config('a', 'b', false) AS x", set, "a", "'b'"},
    {"SELECT set_config('a', 'b'::text, false) x", set, "a", "'b'"},
    {"SELECT mine.set_config('a', 'b', false)", pin},
    {"SELECT set_config('a', 'b', false) FROM t", pin},
    {"SELECT set_config('a', 'b', false), 1", pin},
    {"WITH x AS (SELECT set_config('a','b',false)) SELECT 1", pin},
    {"SELECT setseed(0.5)", pin}, {"SELECT dblink_connect('x')", pin},
    {"EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", pin},
    {"EXPLAIN (ANALYZE, COSTS OFF) CREATE TEMP TABLE x AS SELECT 1", pin},
    {"EXPLAIN ANALYZE SELECT set_config('a','b',true)", pin},
    {"EXPLAIN ANALYZE SELECT pg_advisory_lock(1)", pin}, {"EXPLAIN SELECT 1", none},
    {"COPY t FROM STDIN", copy_from_stdin}, {"copy t (a, b) from stdin with (format csv)", copy_from_stdin},
    {"COPY BINARY t FROM stdin", copy_from_stdin}, {"COPY t FROM STDOUT", copy_from_stdin},
    {"COPY t TO STDOUT", none}, {"COPY (SELECT * FROM stdin) TO STDOUT", none},
    {"COPY t FROM '/tmp/stdin'", none},
    {"DO $$ BEGIN PERFORM 1; END $$", none},
    {"DO $$ BEGIN PERFORM set_config('a','b',false); END $$", pin},
    {"DO $x$ BEGIN CREATE TEMP TABLE t(); END $x$", pin},
    {"DO $$ BEGIN EXECUTE 'LISTEN x'; END $$", pin},
    {"DO LANGUAGE plpgsql 'begin perform pg_advisory_lock(1); end'", pin},
    {"TRUNCATE t", none}, {"LOCK TABLE t", none}, {"VACUUM", none},
};

TEST(statement, table) {
  std::vector<statement> found;
  for (const auto& c : cases) {
    for (const char* after : {"", ";", " ; ;-- x\n"}) {
      const std::string sql = std::string{c.sql} + after;
      find_statements(sql, true, found);
      ASSERT_EQ(found.size(), 1u) << sql;
      EXPECT_EQ(found[0].effect, c.effect) << sql;
      EXPECT_EQ(found[0].name, c.name) << sql;
      EXPECT_EQ(found[0].value, c.value) << sql;
      // The cheap look may only err to the safe side.
      if (!may_affect_session(sql)) {
        EXPECT_EQ(c.effect, none) << sql;
      }
    }
  }
}

TEST(statement, upper_and_lower_case_are_the_same) {
  std::vector<statement> a, b;
  for (const auto& c : cases) {
    std::string sql = c.sql;
    if (sql.find_first_of("\"'$") != sql.npos) continue;
    find_statements(sql, true, a);
    for (char& letter : sql) letter = static_cast<char>(std::toupper(letter));
    find_statements(sql, true, b);
    EXPECT_EQ(a[0].effect, b[0].effect) << sql;
    EXPECT_EQ(a[0].name, b[0].name) << sql;
  }
}

std::vector<effect> effects(std::string_view sql, bool standard = true) {
  std::vector<statement> found;
  find_statements(sql, standard, found);
  std::vector<effect> list;
  for (const auto& s : found) list.push_back(s.effect);
  return list;
}

TEST(statement, several) {
  EXPECT_EQ(effects(""), std::vector<effect>{});
  EXPECT_EQ(effects(" ; ; /* ; */ "), std::vector<effect>{});
  EXPECT_EQ(effects("BEGIN; SELECT 1; COMMIT"), (std::vector{begin, none, commit}));
  EXPECT_EQ(effects("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"),
            (std::vector{none, none, none, reset_all}));
  EXPECT_EQ(effects("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; COMMIT"),
            (std::vector{none, commit}));
  EXPECT_EQ(effects("CREATE OR REPLACE FUNCTION a.f(x int) RETURNS int BEGIN ATOMIC SELECT 1; "
                    "SELECT CASE x WHEN 1 THEN 2 END; END; BEGIN; SELECT 2; END"),
            (std::vector{none, begin, none, commit}));
  EXPECT_EQ(effects("BEGIN; SET LOCAL a = 1; LISTEN x; COMMIT AND CHAIN"),
            (std::vector{begin, set_local, pin, commit}));
  EXPECT_EQ(effects("SELECT 'a;b'; SELECT $x$;$x$; SELECT \"a;\""), (std::vector{none, none, none}));
  EXPECT_EQ(effects("SELECT 'a\\'; COMMIT; --'", true), (std::vector{none, commit}));
  EXPECT_EQ(effects("SELECT 'a\\'; COMMIT; --'", false), (std::vector{none}));
}

TEST(statement, offsets) {
  std::vector<statement> found;
  find_statements("  SELECT 1 ;-- x\n COMMIT /* y */ ;", true, found);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].offset, 2u);
  EXPECT_EQ(found[0].length, 8u);
  EXPECT_EQ(found[1].offset, 18u);
  EXPECT_EQ(found[1].length, 6u);
}

TEST(statement, long_names_are_cut_as_postgresql_does) {
  std::vector<statement> found;
  find_statements("SAVEPOINT " + std::string(80, 'x'), true, found);
  EXPECT_EQ(found[0].name, std::string(63, 'x'));
}

TEST(statement, nothing_to_see_here_is_cheap_to_say) {
  EXPECT_FALSE(may_affect_session("SELECT 1"));
  EXPECT_FALSE(may_affect_session("/* x */ select conversation_id from t where a_b = $1 ; "));
  EXPECT_FALSE(may_affect_session("INSERT INTO messages (a) VALUES ($1) RETURNING id"));
  EXPECT_TRUE(may_affect_session("SELECT 1; COMMIT"));
  EXPECT_TRUE(may_affect_session("SET a = b"));
}

TEST(statement, speed) {
  const std::string_view sql =
      "SELECT conversation_id, name, at FROM user_list WHERE user_id = 123456 AND kind = 'x' LIMIT 20;";
  std::vector<statement> found;
  constexpr int rounds = 200'000;
  std::size_t sum = 0;
  const auto time = [&](const char* what, auto&& body) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) body();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    std::printf("%s: %.0f ns for %zu bytes (%zu)\n", what, took.count() / rounds, sql.size(), sum);
  };
  time("find_statements", [&] {
    find_statements(sql, true, found);
    sum += found.size();
  });
  time("may_affect_session", [&] { sum += may_affect_session(sql); });
}

TEST(statement, set_config_with_parameters_says_what_it_asks_for) {
  const auto only = [](const char* sql) {
    std::vector<statement> found;
    find_statements(sql, true, found);
    return found.at(0);
  };
  const auto asked = only("SELECT set_config('A.b', $2::text, true) AS x, set_config($1, 'c', $3)");
  ASSERT_TRUE(asked.calls);
  ASSERT_EQ(asked.calls->size(), 2u);
  EXPECT_EQ(asked.effect, effect::pin);
  EXPECT_EQ(asked.calls->at(0).name.text, "A.b");
  EXPECT_EQ(asked.calls->at(0).value.parameter, 2);
  EXPECT_EQ(asked.calls->at(0).is_local.text, "true");
  EXPECT_EQ(asked.calls->at(1).name.parameter, 1);
  EXPECT_EQ(asked.calls->at(1).is_local.parameter, 3);
  EXPECT_EQ(only("SELECT set_config($1, $2, true)").effect, effect::set_local);
  // That names may mean others then is said only where it may be.
  EXPECT_FALSE(only("SELECT set_config('a.b', $1, true)").unknown_path);
  EXPECT_TRUE(only("SELECT set_config('a.b', $1, true), set_config('Role', $2, true)").unknown_path);
  for (const char* sql : {"SELECT set_config('a', $1::date, true)", "SELECT set_config('a', $1, f($2))",
                          "SELECT set_config('a', $1, true) + 1", "SELECT set_config('a', $0, true)",
                          "SELECT set_config('a', $99999, true)", "SELECT set_config('a', $1)"}) {
    EXPECT_FALSE(only(sql).calls) << sql;
  }
  statement both = asked;
  ASSERT_TRUE(sets({{"A.b", "x", "'x'", true}, {"search_path", "C, d", "'C, d'", false}}, both));
  EXPECT_EQ(both.effect, effect::set_local);
  EXPECT_EQ(both.name, "a.b");
  EXPECT_EQ(both.value, "'x'");
  ASSERT_EQ(both.also.size(), 1u);
  EXPECT_EQ(both.also[0].effect, effect::set);
  EXPECT_EQ(both.also[0].value, "\"c\", \"d\"");
  EXPECT_FALSE(both.calls);
  statement kept = asked;
  EXPECT_FALSE(sets({{"a.b", "x", "'x'", true}, {"a b", "x", "'x'", true}}, kept));
  EXPECT_TRUE(kept.calls);
}

TEST(statement, says_when_a_path_is_not_known) {
  const auto unknown = [](const char* sql) {
    std::vector<statement> found;
    find_statements(sql, true, found);
    return found.size() == 1 && found[0].unknown_path;
  };
  for (const char* sql : {"SELECT set_config($1, $2, true)", "SELECT set_config($1, $2, false)",
                          "SET search_path = pg_temp, a",
                          "EXPLAIN ANALYZE SELECT set_config('a', $1, true)",
                          "DO $$ BEGIN SET search_path = a; END $$",
                          "SELECT set_config('search_path', $1, true), pg_advisory_lock(1)"}) {
    EXPECT_TRUE(unknown(sql)) << sql;
  }
  for (const char* sql : {"SELECT set_config('search_path', 'a', true)", "SET search_path = a, b",
                          "SET LOCAL search_path = a", "LISTEN x", "CREATE TEMP TABLE t ()",
                          "SET TIME ZONE INTERVAL '1' HOUR", "SELECT 1", "RESET search_path"}) {
    EXPECT_FALSE(unknown(sql)) << sql;
  }
}

}  // namespace
}  // namespace pgsled::sql
