#include "common/sql/shape.hpp"

#include <gtest/gtest.h>
#include <pg_query.h>

#include <chrono>
#include <map>

namespace pgsled::sql {
namespace {

shape shaped(std::string_view sql, bool standard = true) {
  shape s;
  find_shape(sql, standard, s);
  return s;
}

struct shape_case {
  const char* sql;
  const char* text;
};

const shape_case cases[] = {
    {"", ""},
    {"SELECT 1", "select $i"},
    {"select  1 -- one\n", "select $i"},
    {"/* a /* nested */ comment */ SELECT\t1", "select $i"},
    {"SELECT 1;", "select $i ;"},
    {"SELECT a FROM t WHERE id=5", "select a from t where id = $i"},
    {"SELECT a FROM t WHERE id = -5", "select a from t where id = - $i"},
    {"SELECT a FROM t WHERE id=-5", "select a from t where id = - $i"},
    {"SELECT a FROM t WHERE id=@-5", "select a from t where id =@- $i"},
    {"SELECT a FROM t WHERE id = 5.5", "select a from t where id = $n"},
    {"SELECT a FROM t WHERE id = .5e-3", "select a from t where id = $n"},
    {"SELECT 9223372036854775807", "select $i"},
    {"SELECT 9223372036854775808", "select $n"},
    {"SELECT 0000000000000000000000000000001", "select $i"},
    {"SELECT 0x1F", "select 0x1F"},
    {"SELECT 1_000", "select 1_000"},
    {"SELECT 1e", "select 1e"},
    {"SELECT a FROM t WHERE x = 'it''s'", "select a from t where x = $s"},
    {"SELECT 'a'\n'b'", "select 'a'\n'b'"},
    {"SELECT 'a' -- c\n 'b'", "select 'a' -- c\n 'b'"},
    {"SELECT E'a\\'b'", "select E'a\\'b'"},
    {"SELECT U&'\\0041'", "select U&'\\0041'"},
    {"SELECT N'a'", "select N'a'"},
    {"SELECT B'1', x'ff'", "select B'1' , x'ff'"},
    {"SELECT $$it's$$, $a$ $$ $a$", "select $$it's$$ , $a$ $$ $a$"},
    {"SELECT date '2020-01-01'", "select date '2020-01-01'"},
    {"SELECT interval '1' day", "select interval '1' day"},
    {"SELECT interval(3) '1'", "select interval ( $i ) '1'"},
    {"SELECT timestamp with time zone 'now'", "select timestamp with time zone 'now'"},
    {"SELECT \"MyType\" 'x'", "select \"MyType\" 'x'"},
    {"SELECT 'x'::date", "select $s :: date"},
    {"SELECT 'x'::varchar(5)", "select $s :: varchar ( 5 )"},
    {"SELECT 1::numeric(10, 2) + 3", "select $i :: numeric ( 10 , 2 ) + $i"},
    {"SELECT CAST(1 AS pg_catalog.varchar(5))", "select cast ( $i as pg_catalog . varchar ( 5 ) )"},
    {"SELECT a AS b FROM t WHERE c IN (5) AND (d = 6)",
     "select a as b from t where c in ( $i ) and ( d = $i )"},
    {"WITH x AS MATERIALIZED (SELECT 5) SELECT 6", "with x as materialized ( select $i ) select $i"},
    {"SELECT a, b FROM t ORDER BY 1, 2 LIMIT 10", "select a , b from t order by 1 , 2 limit $i"},
    {"SELECT a FROM t GROUP BY 1 HAVING count(*) > 5", "select a from t group by 1 having count ( * ) > $i"},
    {"SELECT a FROM t GROUP BY ROLLUP(1, 2)", "select a from t group by rollup ( 1 , 2 )"},
    {"SELECT DISTINCT ON (1) a FROM t WHERE f(1)", "select distinct on ( 1 ) a from t where f ( $i )"},
    {"SELECT x FROM t WHERE a IN (1,2, -3)", "select x from t where a in ($l)"},
    {"SELECT x FROM t WHERE a IN ('a', 'b')", "select x from t where a in ($l)"},
    {"SELECT x FROM t WHERE a IN (1)", "select x from t where a in ( $i )"},
    {"SELECT x FROM t WHERE a IN ($1, 2)", "select x from t where a in ( $1 , $i )"},
    {"SELECT /*+ SeqScan(t) */ 1", "select /*+ SeqScan(t) */ $i"},
    {"/* pgdog_shard: 1 */ SELECT 1", "/* pgdog_shard: 1 */ select $i"},
    {"SELECT \"A\"\"b\", U&\"d\"", "select \"A\"\"b\" , U&\"d\""},
    {"SELECT 1..2", "select $i .. $i"},
    {"SELECT a[1], 'x' ~ 'y'", "select a [ $i ] , $s ~ $s"},
    {"SELECT a$1, $1", "select a$1 , $1"},
    {"SELECT 'a' LIKE 'b' ESCAPE 'c'", "select $s like $s escape $s"},
    {"INSERT INTO t VALUES (1, 'a', 2.5)", "insert into t values ( $i , $s , $n )"},
    {"CREATE TABLE t (a varchar(5) DEFAULT 'x')", "create table t ( a varchar ( 5 ) default 'x' )"},
    {"SET x = 5; SELECT 5", "set x = 5 ; select $i"},
    {"SELECT a<-5, b<@c, d->>'e'", "select a < - $i , b <@ c , d ->> $s"},
    {"SELECT 1/*x*/+/*y*/2", "select $i + $i"},
    {"SELECT 1 +-- x\n2", "select $i + $i"},
    {"\xc3\x84 SELECT \xc3\xa4", "\xc3\x84 select \xc3\xa4"},
    {"SELECT $a", "select $ a"},
};

TEST(shape, table) {
  for (const auto& c : cases) {
    const shape s = shaped(c.sql);
    EXPECT_EQ(s.text, c.text) << c.sql;
    EXPECT_TRUE(s.complete) << c.sql;
  }
}

TEST(shape, literals_and_values) {
  const std::string_view sql = "UPDATE t SET a = 'it''s', b = 1.5 WHERE id = -42";
  const shape s = shaped(sql);
  ASSERT_EQ(s.literals.size(), 3u);
  EXPECT_EQ(literal_value(sql, s.literals[0]), "it's");
  EXPECT_TRUE(s.literals[0].quoted);
  EXPECT_EQ(literal_value(sql, s.literals[1]), "1.5");
  EXPECT_EQ(literal_value(sql, s.literals[2]), "42");
  EXPECT_EQ(s.literals[2].offset, sql.find("42"));
}

TEST(shape, incomplete) {
  for (const char* sql : {"SELECT 'a", "SELECT \"a", "SELECT /* a", "SELECT $$a", "SELECT E'a\\'",
                          "SELECT E'a\\", "SELECT 'a''", "SELECT 'a'\n'b", "SELECT U&'", "SELECT $x$ $y$"}) {
    EXPECT_FALSE(shaped(sql).complete) << sql;
  }
}

TEST(shape, standard_strings_off) {
  EXPECT_EQ(shaped("SELECT 'a\\'b' , 'c'", false).text, "select 'a\\'b' , $s");
  EXPECT_TRUE(shaped("SELECT 'a\\'b' , 'c'", false).backslashes);
  EXPECT_FALSE(shaped("SELECT 'a', E'\\n'", false).backslashes);
  EXPECT_FALSE(shaped("SELECT 'a\\'b' , 'c'", true).complete);
  EXPECT_FALSE(shaped("SELECT 'a\\", false).complete);
}

TEST(shape, scratch_is_reused) {
  shape s;
  find_shape("SELECT a FROM a_rather_long_name WHERE b = 'some text'", true, s);
  const char* before = s.text.data();
  find_shape("SELECT 1", true, s);
  EXPECT_EQ(s.text, "select $i");
  EXPECT_EQ(s.text.data(), before);
  EXPECT_EQ(s.literals.size(), 1u);
}

// libpg_query's fingerprint leaves constants out too: one shape must never hold two fingerprints.
TEST(shape, one_shape_has_one_fingerprint) {
  std::map<std::string, std::string> fingerprints;
  std::vector<std::string> corpus;
  const char* templates[] = {
      "SELECT a FROM t WHERE id = %", "SELECT a FROM t WHERE id=%", "select  A from T where ID = %",
      "SELECT a FROM \"T\" WHERE id = %", "SELECT a FROM t WHERE id = -%",
      "SELECT a FROM t WHERE id - %", "SELECT a FROM t ORDER BY a LIMIT %",
      "SELECT a FROM t WHERE id IN (%)", "INSERT INTO t (a, b) VALUES (%, %)",
      "UPDATE t SET a = % WHERE b = %", "DELETE FROM t WHERE a = % AND b > %",
      "SELECT %::bigint", "SELECT CAST(% AS text)", "SELECT f(%, b) FROM t",
      "SELECT CASE WHEN a = % THEN % ELSE % END", "SELECT a[%] FROM t",
      "SELECT a FROM t WHERE b BETWEEN % AND %", "WITH x AS (SELECT %) SELECT * FROM x",
      "SELECT % AS a, % b", "SELECT a /*+ x */ FROM t WHERE b = %",
      "SELECT a /*+ y */ FROM t WHERE b = %"};
  const char* values[] = {"1", "'x'", "2.5", "99999999999", "'o''k'", "1e10", "'2020-01-01'"};
  for (const char* t : templates) {
    for (const char* v : values) {
      std::string sql;
      for (const char* p = t; *p; ++p) *p == '%' ? sql += v : sql += *p;
      corpus.push_back(sql);
    }
  }
  for (const auto& c : cases) corpus.push_back(c.sql);
  int compared = 0;
  for (const auto& sql : corpus) {
    const PgQueryFingerprintResult result = pg_query_fingerprint(sql.c_str());
    if (!result.error) {
      ++compared;
      const auto [at, fresh] = fingerprints.emplace(shaped(sql).text, result.fingerprint_str);
      EXPECT_EQ(at->second, result.fingerprint_str) << sql << " => " << at->first;
    }
    pg_query_free_fingerprint_result(result);
  }
  EXPECT_GT(compared, 150);
}

TEST(shape, speed) {
  const std::string_view sql =
      "SELECT conversation_id, name, at FROM user_list WHERE user_id = 123456 AND kind = 'x' LIMIT 20;";
  shape s;
  const auto start = std::chrono::steady_clock::now();
  constexpr int rounds = 200'000;
  std::size_t sum = 0;
  for (int i = 0; i < rounds; ++i) {
    find_shape(sql, true, s);
    sum += s.text.size();
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  RecordProperty("ns", std::to_string(took.count() / rounds));
  std::printf("find_shape: %.0f ns for %zu bytes (%zu)\n", took.count() / rounds, sql.size(), sum);
}

}  // namespace
}  // namespace pgsled::sql
