#include "common/sql/parse.hpp"

#include <pg_query.h>

#include <algorithm>
#include <vector>

#include "common/sql/lexer.hpp"

namespace pgsled::sql {
namespace {

using namespace literals;

// libpg_query 15 writes its tree by recursion without a check and dies on 1+1+1+… some ten thousand
// long. What nests to the right or in parentheses the grammar's own stack bounds; chains of
// left-associative operators, joins and set operations are bounded here.
constexpr unsigned deepest_chain = 2000;

class chain_meter {
 public:
  bool too_deep(const token& t) {
    if (t.kind == token_kind::word) return word(t.code);
    if (t.kind != token_kind::symbol) return false;
    switch (t.code) {
      case '(': case '[':
        levels_.push_back({});
        base_ += last_total_;
        last_total_ = 0;
        return false;
      case ')': case ']':
        if (levels_.size() > 1) levels_.pop_back();
        last_total_ = levels_.back().total();
        base_ -= std::min(base_, last_total_);
        return false;
      case ',':
        levels_.back().operators = 0;
        break;
      case ';':
        levels_.assign(1, {});
        base_ = 0;
        break;
      case '.': return false;
      default: ++levels_.back().operators; break;
    }
    return check();
  }

 private:
  struct level {
    unsigned operators = 0, sets = 0, joins = 0;
    unsigned total() const { return operators + sets + joins; }
  };

  bool word(std::uint64_t code) {
    level& now = levels_.back();
    switch (code) {
      case "and"_w: case "or"_w: case "from"_w: case "where"_w: case "on"_w: case "when"_w:
      case "then"_w: case "else"_w: case "by"_w: case "having"_w: case "values"_w:
        now.operators = 0;
        break;
      case "select"_w:
        now.operators = now.joins = 0;
        break;
      case "union"_w: case "except"_w: ++now.sets; break;
      case 0: break;
      case "join"_w: ++now.joins; break;
      case "collate"_w: case "at"_w: case "like"_w: case "ilike"_w: case "is"_w: case "in"_w:
      case "isnull"_w: case "notnull"_w: case "similar"_w: case "between"_w:
        ++now.operators;
        break;
      default: break;
    }
    return check();
  }
  bool check() {
    last_total_ = levels_.back().total();
    return base_ + last_total_ > deepest_chain;
  }

  std::vector<level> levels_{1};
  unsigned base_ = 0;        // sum over the levels around the present one
  unsigned last_total_ = 0;  // of the present one
};

bool too_deep(std::string_view sql) {
  lexer lex{sql, true};
  chain_meter meter;
  unsigned intersects = 0;
  for (token t = lex.next(); t.kind != token_kind::end; t = lex.next()) {
    if (meter.too_deep(t)) return true;
    if (t.kind == token_kind::word && t.size() == 9 && fold(sql[t.begin]) == 'i' &&
        ++intersects > deepest_chain && identifier(sql, t) == "intersect") {
      return true;
    }
  }
  return false;
}

}  // namespace

result<std::string> parse_tree(const std::string& sql) {
  if (too_deep(sql)) {
    return failure("54001", "statement nests too deeply to be planned",
                   "Chains of operators, joins or UNIONs end at 2000 members.");
  }
  const PgQueryProtobufParseResult parsed = pg_query_parse_protobuf(sql.c_str());
  if (parsed.error) {
    pg_error error{"42601", parsed.error->message ? parsed.error->message : "syntax error", {}, {}};
    pg_query_free_protobuf_parse_result(parsed);
    return tl::unexpected<pg_error>(std::move(error));
  }
  std::string tree{parsed.parse_tree.data, parsed.parse_tree.len};
  pg_query_free_protobuf_parse_result(parsed);
  return tree;
}

result<std::vector<std::pair<std::size_t, std::size_t>>> split(const std::string& sql) {
  if (too_deep(sql)) return failure("54001", "statement nests too deeply to be planned", {});
  const PgQuerySplitResult found = pg_query_split_with_parser(sql.c_str());
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  const bool good = found.error == nullptr;
  for (int i = 0; good && i < found.n_stmts; ++i) {
    auto at = static_cast<std::size_t>(found.stmts[i]->stmt_location);
    const auto end = at + static_cast<std::size_t>(found.stmts[i]->stmt_len);
    while (at < end && (sql[at] == ' ' || (sql[at] >= '\t' && sql[at] <= '\r'))) ++at;
    parts.emplace_back(at, std::min(end, sql.size()) - at);
  }
  pg_query_free_split_result(found);
  if (!good) return failure("42601", "syntax error", {});
  return parts;
}

int parser_version() { return PG_VERSION_NUM; }

}  // namespace pgsled::sql
