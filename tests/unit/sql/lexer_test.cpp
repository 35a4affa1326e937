#include "common/sql/lexer.hpp"

#include <gtest/gtest.h>
#include <pg_query.h>

#include <cctype>

#include "pg_query.pb-c.h"

namespace pgsled::sql {
namespace {

using span = std::pair<std::uint32_t, std::uint32_t>;

bool unicode(const std::string& sql, std::int64_t at) {
  const std::string start = sql.substr(static_cast<std::size_t>(at), 3);
  return start == "U&'" || start == "U&\"";
}

// Token boundaries by libpg_query's scanner, comments left out. NCHAR and its string, which scan.l
// gives as two tokens, are joined as ours are. Where a U& token ends the scanner does not say
// (end 0 here). nullopt: it refuses the text.
std::optional<std::vector<span>> reference(const std::string& sql) {
  const PgQueryScanResult scanned = pg_query_scan(sql.c_str());
  std::optional<std::vector<span>> spans;
  if (!scanned.error) {
    spans.emplace();
    PgQuery__ScanResult* tree =
        pg_query__scan_result__unpack(nullptr, scanned.pbuf.len,
                                      reinterpret_cast<const std::uint8_t*>(scanned.pbuf.data));
    bool nchar = false;
    for (std::size_t i = 0; i < tree->n_tokens; ++i) {
      const auto& t = *tree->tokens[i];
      if (t.token == PG_QUERY__TOKEN__SQL_COMMENT || t.token == PG_QUERY__TOKEN__C_COMMENT) continue;
      const auto begin = static_cast<std::uint32_t>(t.start), end = static_cast<std::uint32_t>(unicode(sql, t.start) ? 0 : t.end);
      if (nchar && t.token == PG_QUERY__TOKEN__SCONST && spans->back().second == begin) {
        spans->back().second = end;
      } else {
        spans->emplace_back(begin, end);
      }
      nchar = t.token == PG_QUERY__TOKEN__NCHAR;
    }
    pg_query__scan_result__free_unpacked(tree, nullptr);
  }
  pg_query_free_scan_result(scanned);
  return spans;
}

std::vector<span> ours(const std::string& sql) {
  std::vector<span> spans;
  lexer lex{sql, true};
  for (token t = lex.next(); t.kind != token_kind::end; t = lex.next()) {
    spans.emplace_back(t.begin, unicode(sql, t.begin) ? 0 : t.end);
  }
  return spans;
}

const char* const pieces[] = {
    "SELECT", "a", "_x$1", "\xc3\xa4", "\"q\"\"i\"", "U&\"d\\0061\"", "'text'", "''", "'it''s'",
    "E'a\\'b'", "e'\\n'", "U&'\\0041'", "b'01'", "X'1f'", "N'n'", "$$dollar$$", "$t$ $$ $t$", "$1",
    "$23", "1", "1.5", ".5", "1.", "1.5e3", "1e-3", "2E+4", "1..2", "(", ")", "[", "]", ",", ";", ":",
    "::", ":=", "..", ".", "=>", "<=", ">=", "<>", "!=", "=", "<", ">", "+", "-", "*", "/", "%", "^",
    "@>", "<@", "->>", "=-", "<-", "@-", "~*", "!~", "||", "|", "&", "#>", "?", "?|", "-- line\n",
    "/* c */", "/* a /* b */ c */", "+/* x */", "*/", "*-- x\n", "'a'\n'b'", "'a' -- c\n 'b'",
    "E'a'\n'b\\''", "N'x' 'y'", "n 'x'", "u & 'x'", "e", "INTO", "int8", "@@", "<->", "!!=-", "?-",
};

// From PostgreSQL 15 on a mistake; libpg_query 17 takes it for a parameter and a word.
bool parameter_with_a_tail(const std::string& sql) {
  for (auto at = sql.find('$'); at != sql.npos; at = sql.find('$', at + 1)) {
    const auto end = sql.find_first_not_of("0123456789", at + 1);
    if (end == sql.npos || end == at + 1) continue;
    const auto next = static_cast<unsigned char>(sql[end]);
    if (std::isalpha(next) || next == '_' || next >= 0x80) return true;
  }
  return false;
}

void compare(const std::string& sql, int& compared) {
  if (parameter_with_a_tail(sql)) return;
  // libpg_query's scanner, unlike PostgreSQL's, does not join strings over a comment.
  if (const auto comment = sql.rfind("-- "); comment != sql.npos && sql.find('\'') < comment) return;
  const auto expected = reference(sql);
  if (!expected) return;
  ++compared;
  EXPECT_EQ(ours(sql), *expected) << sql;
}

TEST(lexer, token_boundaries_are_those_of_the_parser) {
  int compared = 0;
  for (const char* a : pieces) {
    compare(a, compared);
    for (const char* b : pieces) {
      compare(std::string{a} + b, compared);
      compare(std::string{a} + " " + b, compared);
      compare(std::string{a} + "\n" + b + " x", compared);
    }
  }
  std::uint64_t seed = 42;
  const auto random = [&](std::size_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>(seed >> 33) % n;
  };
  for (int i = 0; i < 5'000; ++i) {
    std::string sql;
    for (std::size_t n = 1 + random(12); n > 0; --n) {
      sql += pieces[random(std::size(pieces))];
      if (random(2)) sql += random(4) ? " " : "\n";
    }
    compare(sql, compared);
  }
  std::printf("compared %d texts\n", compared);
  EXPECT_GT(compared, 10'000);
}

TEST(lexer, kinds) {
  const std::string sql = "sel 'a' E'b' \"c\" 1 1.0 1a $1 $1a <= /*+ h */ U&\"x\"";
  lexer lex{sql, true, true};
  using enum token_kind;
  for (const token_kind kind : {word, text, other_text, quoted, integer, number, junk, parameter,
                                junk, symbol, hint, unicode_id, token_kind::end}) {
    EXPECT_EQ(lex.next().kind, kind);
  }
  EXPECT_FALSE(lex.unterminated());
}

TEST(lexer, identifiers) {
  const auto name = [](const std::string& sql) { return identifier(sql, lexer{sql, true}.next()); };
  EXPECT_EQ(name("ABC"), "abc");
  EXPECT_EQ(name("\"A\"\"B\""), "A\"B");
  EXPECT_EQ(name("\"\""), "");
  EXPECT_EQ(name("\"abc"), "ab");  // unterminated: anything, but no crash
  EXPECT_EQ(name(std::string(62, 'a') + "\xc3\xa4"), std::string(62, 'a'));
}

}  // namespace
}  // namespace pgsled::sql
