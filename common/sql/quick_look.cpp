// The cheap look before find_statements: a filter over the bytes.
#include <array>

#include "common/sql/lexer.hpp"
#include "common/sql/statement.hpp"

namespace pgsled::sql {
namespace {

using namespace literals;

// Statements that do nothing to a session unless they call a function that does.
bool is_ordinary(std::uint64_t word) {
  switch (word) {
    case "select"_w: case "insert"_w: case "update"_w: case "delete"_w: case "with"_w:
    case "values"_w: case "fetch"_w: case "table"_w: case "close"_w: case "show"_w:
    case "notify"_w: case "truncate"_w: case "alter"_w: case "drop"_w: case "vacuum"_w:
      return true;
    default:
      return false;
  }
}

constexpr std::array<bool, 256> make_suspects() {
  std::array<bool, 256> table{};
  for (char c : {';', '"', 'v', 'V', '_', 'm', 'M', 't', 'T'}) {
    table[static_cast<std::uint8_t>(c)] = true;
  }
  return table;
}
constexpr auto suspects = make_suspects();

bool has_word_at(std::string_view sql, std::size_t at, std::string_view lower) {
  if (at + lower.size() > sql.size()) return false;
  for (std::size_t i = 0; i < lower.size(); ++i) {
    if (fold(sql[at + i]) != lower[i]) return false;
  }
  return true;
}

// sql[i] is one of the suspects: is it the telling letter of a word that matters?
bool is_suspicious(std::string_view sql, std::size_t i) {
  switch (fold(sql[i])) {
    case ';': return sql.find_first_not_of(" \t\r\n;", i) != sql.npos;
    case '"': return i > 0 && sql[i - 1] == '&';
    case 'v': return i >= 2 && has_word_at(sql, i - 2, "advisory");
    case 'm': return i >= 2 && has_word_at(sql, i - 2, "temp");
    case 't': return i >= 2 && has_word_at(sql, i - 2, "setseed");
    case '_':
      return (i >= 3 && has_word_at(sql, i - 3, "set_config")) ||
             (i >= 3 && has_word_at(sql, i - 3, "set_limit")) ||
             has_word_at(sql, i, "_connect") || has_word_at(sql, i, "_session_setup");
    default: return true;
  }
}

}  // namespace

bool may_affect_session(std::string_view sql) {
  lexer first{sql, true};
  token t = first.next();
  while (t.is_symbol('(')) t = first.next();
  if (t.kind == token_kind::end && !first.unterminated()) return false;
  if (t.kind != token_kind::word || !is_ordinary(t.code)) return true;
  for (std::size_t i = t.end; i < sql.size(); ++i) {
    if (suspects[static_cast<std::uint8_t>(sql[i])] && is_suspicious(sql, i)) return true;
  }
  return false;
}

}  // namespace pgsled::sql
