#include "common/sql/shape.hpp"

#include "common/sql/lexer.hpp"

namespace pgsled::sql {
namespace {

using namespace literals;

// Statements that literals are lifted from. The others are rare or cannot hold an expression, and
// there numbers are type modifiers, names of objects, or options.
bool lifts(std::uint64_t first_word) {
  switch (first_word) {
    case "select"_w: case "insert"_w: case "update"_w: case "delete"_w: case "with"_w:
    case "values"_w: case "merge"_w: case "explain"_w: case "table"_w: case "declare"_w:
      return true;
    default:
      return false;
  }
}

// Words that may stand before a string without being its type: they are reserved, or cannot be the
// name of a type. After any other word '…' is a typed literal (date '…').
bool no_type_name(std::uint64_t word) {
  switch (word) {
    case "select"_w: case "where"_w: case "and"_w: case "or"_w: case "not"_w: case "like"_w:
    case "ilike"_w: case "to"_w: case "between"_w: case "when"_w: case "then"_w: case "else"_w:
    case "all"_w: case "any"_w: case "some"_w: case "array"_w: case "as"_w: case "by"_w:
    case "case"_w: case "distinct"_w: case "escape"_w: case "from"_w: case "having"_w:
    case "in"_w: case "is"_w: case "limit"_w: case "offset"_w: case "on"_w: case "using"_w:
    case "variadic"_w: case "both"_w: case "leading"_w: case "trailing"_w:
      return true;
    default:
      return false;
  }
}

class shaper {
 public:
  shaper(std::string_view sql, bool standard_strings, shape& into)
      : sql_(sql), lexer_(sql, standard_strings, true), into_(into) {
    // The longest a token can grow is "1" to "$i ".
    into_.text.resize(3 * sql.size() + 16);
    out_ = into_.text.data();
    into_.literals.clear();
  }

  void run() {
    for (token t = lexer_.next(); t.kind != token_kind::end; t = lexer_.next()) {
      take(t);
      last_ = t;
    }
    const auto size = static_cast<std::size_t>(out_ - into_.text.data());
    into_.text.resize(size > 0 ? size - 1 : 0);  // without the last separator
    into_.complete = !lexer_.unterminated();
    into_.backslashes = lexer_.escaping_backslash();
  }

 private:
  void take(const token& t) {
    switch (t.kind) {
      case token_kind::word: return word(t);
      case token_kind::symbol: return symbol(t);
      case token_kind::integer: return keeps_number() ? copy(t) : lift(t, "$i ");
      case token_kind::number: return keeps_number() ? copy(t) : lift(t, "$n ");
      case token_kind::text: return keeps_text() ? copy(t) : lift(t, "$s ");
      default:
        return copy(t);
    }
  }

  void copy(const token& t) {
    std::memcpy(out_, sql_.data() + t.begin, t.size());
    out_ += t.size();
    *out_++ = ' ';
  }
  void lift(const token& t, const char* placeholder) {
    std::memcpy(out_, placeholder, 3);
    out_ += 3;
    into_.literals.push_back({t.begin, t.size(), t.kind == token_kind::text});
  }

  void start_statement(std::uint64_t first_word) {
    lifting_known_ = true;
    lifting_ = lifts(first_word);
    list_depth_ = -1;
    type_ = type_state::none;
  }

  void word(const token& t) {
    if (!lifting_known_) start_statement(t.code);
    if (t.code != 0) {
      std::memcpy(out_, &t.code, sizeof t.code);
      out_ += t.size();
    } else {
      for (std::uint32_t i = t.begin; i < t.end; ++i) *out_++ = fold(sql_[i]);
    }
    *out_++ = ' ';
    switch (t.code) {
      case "by"_w:
        if (last_.is("order"_w) || last_.is("group"_w)) list_depth_ = depth_;
        break;
      case "on"_w:
        if (last_.is("distinct"_w)) list_depth_ = depth_ + 1;
        break;
      case "as"_w:
        type_ = type_state::name;
        return;
      case "select"_w: case "limit"_w: case "offset"_w: case "union"_w: case "having"_w:
        if (list_depth_ == depth_) list_depth_ = -1;
        break;
      default:
        break;
    }
    if (no_type_name(t.code)) type_ = type_state::none;
  }

  void symbol(const token& t) {
    if (t.is_symbol(';') && depth_ == 0) {
      lifting_known_ = false;
    } else if (t.is_symbol('(')) {
      if (lifting_ && last_.is("in"_w) && literal_list()) return;
      ++depth_;
      // AS ( opens a sub-select; a type has its name before its modifiers.
      const bool named = last_.kind == token_kind::word && !last_.is("as"_w);
      type_ = type_ == type_state::name && named ? type_state::modifiers : type_state::none;
    } else if (t.is_symbol(')')) {
      if (--depth_ < list_depth_) list_depth_ = -1;
      type_ = type_state::none;
    } else if (t.code == "::"_w) {
      type_ = type_state::name;
    } else if (!t.is_symbol('.') && !(t.is_symbol(',') && type_ == type_state::modifiers)) {
      type_ = type_state::none;
    }
    copy(t);
  }

  // ( literal, literal … ) after IN, two or more: one shape for all lengths.
  bool literal_list() {
    lexer ahead = lexer_;
    unsigned count = 0;
    while (true) {
      token t = ahead.next();
      if (t.is_symbol('-') || t.is_symbol('+')) t = ahead.next();
      if (t.kind != token_kind::integer && t.kind != token_kind::number &&
          t.kind != token_kind::text) {
        return false;
      }
      ++count;
      t = ahead.next();
      if (t.is_symbol(')')) break;
      if (!t.is_symbol(',')) return false;
    }
    if (count < 2) return false;
    lexer_ = ahead;
    std::memcpy(out_, "($l) ", 5);
    out_ += 5;
    return true;
  }

  bool keeps_number() const {
    if (!lifting_ || !lifting_known_ || type_ == type_state::modifiers) return true;
    // An ordinal stands alone between commas (and the parentheses of ROLLUP and the like).
    return list_depth_ >= 0 &&
           (last_.is("by"_w) || last_.is_symbol(',') || last_.is_symbol('('));
  }
  bool keeps_text() const {
    if (!lifting_ || !lifting_known_) return true;
    switch (last_.kind) {
      case token_kind::word: return !no_type_name(last_.code);
      case token_kind::symbol: return last_.is_symbol(')') || last_.is_symbol(']');
      default: return true;
    }
  }

  enum class type_state : std::uint8_t { none, name, modifiers };

  std::string_view sql_;
  lexer lexer_;
  shape& into_;
  char* out_ = nullptr;
  token last_;
  int depth_ = 0;
  int list_depth_ = -1;  // of an ORDER BY, GROUP BY or DISTINCT ON list; -1: in none
  type_state type_ = type_state::none;
  bool lifting_known_ = false, lifting_ = false;
};

}  // namespace

void find_shape(std::string_view sql, bool standard_strings, shape& into) {
  shaper{sql, standard_strings, into}.run();
}

std::string literal_value(std::string_view sql, const literal& at) {
  std::string_view raw = sql.substr(at.offset, at.length);
  if (!at.quoted || raw.size() < 2) return std::string{raw};
  raw = raw.substr(1, raw.size() - 2);
  std::string value;
  value.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    value += raw[i];
    if (raw[i] == '\'') ++i;
  }
  return value;
}

}  // namespace pgsled::sql
