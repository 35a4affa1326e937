#include "common/sql/parse.hpp"

#include <gtest/gtest.h>
#include <pg_query.h>

#include "common/sql/statement.hpp"

namespace pgsled::sql {
namespace {

std::string repeated(std::string start, const std::string& part, int n, std::string end = {}) {
  for (int i = 0; i < n; ++i) start += part;
  return start + end;
}

TEST(parse, gives_a_tree_or_a_syntax_error) {
  EXPECT_TRUE(parse_tree("SELECT 1").has_value());
  EXPECT_TRUE(parse_tree("").has_value());
  const auto broken = parse_tree("SELEC 1");
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().sqlstate, "42601");
  EXPECT_EQ(parser_version() / 10000, PG_VERSION_NUM / 10000);
}

TEST(parse, splits_where_the_grammar_does) {
  const auto texts = [](const std::string& sql) {
    std::vector<std::string> out;
    const auto parts = split(sql).value();
    for (const auto& [at, length] : parts) out.push_back(sql.substr(at, length));
    return out;
  };
  using list = std::vector<std::string>;
  EXPECT_EQ(texts(""), list{});
  EXPECT_EQ(texts(";; SELECT 1 ;\n\tSELECT ';' ; -- x;y\n;"), (list{"SELECT 1 ", "SELECT ';' "}));
  EXPECT_EQ(texts("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3"),
            (list{"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
                  "SELECT 3"}));
  EXPECT_EQ(texts("SELECT 'é'; SELECT 2"), (list{"SELECT 'é'", "SELECT 2"}));
  EXPECT_FALSE(split("SELECT 1; SELEC 2"));
  EXPECT_FALSE(split(repeated("SELECT 1", "+1", 50'000)));
}

TEST(parse, depth_is_bounded_and_length_is_not) {
  for (const auto& sql :
       {repeated("SELECT 1", "+1", 50'000), repeated("SELECT 1", " UNION SELECT 1", 200'000),
        repeated("SELECT 1", " INTERSECT SELECT 1", 50'000), repeated("SELECT 1", "::int", 50'000),
        repeated("SELECT a", " COLLATE c", 50'000), repeated("SELECT * FROM a", " JOIN b ON true", 50'000),
        repeated("SELECT f(1", "+f(1)", 50'000, ")"), repeated("SELECT a", " AT TIME ZONE b", 50'000),
        repeated("SELECT (1+1), 1", "*(2)", 50'000), repeated("SELECT 1, f(2)", "||'x'", 50'000)}) {
    const auto tree = parse_tree(sql);
    ASSERT_FALSE(tree.has_value()) << sql.substr(0, 40);
    EXPECT_EQ(tree.error().sqlstate, "54001") << sql.substr(0, 40);
  }
  for (const auto& sql :
       {repeated("SELECT 1", "+1", 1'000), repeated("INSERT INTO t VALUES (-1)", ",(-1)", 50'000),
        repeated("SELECT 1 WHERE a=1", " OR a=1", 50'000), repeated("SELECT 1", ",a.b+1", 50'000),
        repeated("SELECT f(1+1)", ", f(1+1)", 50'000), repeated("SELECT 1", ";SELECT 1+1", 20'000)}) {
    EXPECT_TRUE(parse_tree(sql).has_value()) << sql.substr(0, 40);
  }
}

// Statements end where the parser says they end.
TEST(parse, statements_are_split_as_the_parser_does) {
  for (const std::string sql :
       {"SELECT 1; SELECT 2", "SELECT 1;; ;SELECT ';' ;", "BEGIN; INSERT INTO t VALUES (1); COMMIT",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$; SELECT 2",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 3",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
        "SELECT E'\\';' ; SELECT \";\"; /* ; */ SELECT 3 -- ;\n; SELECT 4"}) {
    std::vector<statement> found;
    find_statements(sql, true, found);
    const PgQuerySplitResult split = pg_query_split_with_parser(sql.c_str());
    ASSERT_EQ(split.error, nullptr) << sql;
    ASSERT_EQ(static_cast<int>(found.size()), split.n_stmts) << sql;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const std::string theirs = sql.substr(static_cast<std::size_t>(split.stmts[i]->stmt_location),
                                            static_cast<std::size_t>(split.stmts[i]->stmt_len));
      EXPECT_NE(theirs.find(sql.substr(found[i].offset, found[i].length)), theirs.npos) << sql;
    }
    pg_query_free_split_result(split);
  }
}

}  // namespace
}  // namespace pgsled::sql
