#pragma once
// The lexer under shape, statement and planner: PostgreSQL's scan.l by hand, over a view of the
// statement, without copies or allocation. It never fails: what scan.l would refuse (a number with
// letters behind it, a stray character) becomes a token of its own, an unterminated quote or
// comment ends the text and is remembered. Input must be in an encoding whose multi-byte
// characters hold no ASCII bytes (all server encodings; not SJIS, BIG5, GBK, UHC, GB18030).
// Pure; one lexer belongs to one thread.

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace pgsled::sql {

enum class token_kind : std::uint8_t {
  end,
  word,        // unquoted identifier or key word
  quoted,      // "…"
  unicode_id,  // U&"…"
  text,        // '…' in one piece, without anything that needs decoding but doubled quotes
  other_text,  // E'' U&'' B'' X'' N'' $$…$$, joined strings, '…' with backslashes that escape
  integer,     // decimal digits that fit int8
  number,      // any other number
  junk,        // digits or $n with letters behind them: an error, or newer syntax
  parameter,   // $n
  symbol,      // operators and punctuation
  hint,        // hint comment; only when asked for
};

// A word of up to eight bytes in lower case as one integer, the first byte lowest; longer: 0.
constexpr std::uint64_t word_code(std::string_view word) {
  if (word.size() > 8) return 0;
  std::uint64_t code = 0;
  for (std::size_t i = word.size(); i-- > 0;) {
    code = code << 8 | static_cast<std::uint8_t>(word[i]);
  }
  return code;
}
namespace literals {
consteval std::uint64_t operator""_w(const char* text, std::size_t size) {
  if (size > 8) throw "key word too long for a code";
  return word_code({text, size});
}
}  // namespace literals

struct token {
  token_kind kind = token_kind::end;
  std::uint32_t begin = 0, end = 0;  // bytes [begin, end) of the text
  std::uint64_t code = 0;            // word: word_code, 0 if longer; symbol: its bytes likewise

  bool is(std::uint64_t word) const { return kind == token_kind::word && code == word; }
  bool is_symbol(char c) const {
    return kind == token_kind::symbol && code == static_cast<std::uint8_t>(c);
  }
  std::uint32_t size() const { return end - begin; }
};

namespace detail {
enum char_class : std::uint8_t {
  blank = 1, digit = 2, id_start = 4, id_more = 8, op = 16, upper = 32
};
constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> table{};
  for (char c : {' ', '\t', '\n', '\r', '\f', '\v'}) table[static_cast<std::uint8_t>(c)] = blank;
  for (unsigned c = '0'; c <= '9'; ++c) table[c] = digit | id_more;
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] = id_start | id_more;
  for (unsigned c = 'A'; c <= 'Z'; ++c) table[c] = id_start | id_more | upper;
  for (unsigned c = 128; c <= 255; ++c) table[c] = id_start | id_more;
  table['_'] = id_start | id_more;
  table['$'] = id_more;
  for (char c : {'~', '!', '@', '#', '^', '&', '|', '`', '?', '+', '-', '*', '/', '%', '<', '>',
                 '='}) {
    table[static_cast<std::uint8_t>(c)] = op;
  }
  return table;
}
inline constexpr auto classes = make_classes();
inline std::uint8_t class_of(char c) { return classes[static_cast<std::uint8_t>(c)]; }
}  // namespace detail

inline char fold(char c) {
  return detail::class_of(c) & detail::upper ? static_cast<char>(c | 0x20) : c;
}

class lexer {
 public:
  lexer(std::string_view sql, bool standard_strings, bool want_hints = false,
        std::uint32_t from = 0)
      : p_(sql.data()), n_(static_cast<std::uint32_t>(sql.size())), at_(from),
        standard_(standard_strings), hints_(want_hints) {}

  token next();
  bool unterminated() const { return unterminated_; }
  bool escaping_backslash() const { return backslash_; }  // in a plain '…', standard_strings off

 private:
  char peek(std::uint32_t at) const { return at < n_ ? p_[at] : '\0'; }
  token make(token_kind kind, std::uint32_t begin, std::uint64_t code = 0) const {
    return {kind, begin, at_, code};
  }
  token word();
  token quote(std::uint32_t begin, bool escapes, token_kind kind, bool doubles = true);
  token double_quote(std::uint32_t begin, token_kind kind);
  token prefixed();
  token number();
  token dollar();
  token operators();
  token punctuation();
  bool block_comment(token& hint);
  bool continues(std::uint32_t& at) const;
  void skip_line();

  const char* p_;
  std::uint32_t n_, at_;
  bool standard_, hints_;
  bool unterminated_ = false, backslash_ = false;
};

// Folds while it looks for the end: most bytes of a statement belong to words.
inline token lexer::word() {
  const std::uint32_t begin = at_;
  std::uint64_t code = 0;
  unsigned shift = 0;
  while (at_ < n_) {
    const char c = p_[at_];
    const std::uint8_t kind = detail::class_of(c);
    if (!(kind & detail::id_more)) break;
    if (shift < 64) {
      code |= std::uint64_t{static_cast<std::uint8_t>(kind & detail::upper ? c | 0x20 : c)}
              << shift;
    }
    shift += 8;
    ++at_;
  }
  return make(token_kind::word, begin, shift <= 64 ? code : 0);
}

inline token lexer::next() {
  while (at_ < n_) {
    const char c = p_[at_];
    const std::uint8_t kind = detail::class_of(c);
    if (kind & detail::blank) {
      ++at_;
      continue;
    }
    if (kind & detail::id_start) {
      if (const char after = peek(at_ + 1); after == '\'' || after == '&') return prefixed();
      return word();
    }
    if (kind & detail::digit) return number();
    if (kind & detail::op) {
      if (c == '-' && peek(at_ + 1) == '-') {
        skip_line();
        continue;
      }
      if (c == '/' && peek(at_ + 1) == '*') {
        token hint;
        if (block_comment(hint)) return hint;
        continue;
      }
      return operators();
    }
    switch (c) {
      case '\'': return quote(at_, !standard_, token_kind::text);
      case '"': return double_quote(at_, token_kind::quoted);
      case '$': return dollar();
      default: return punctuation();
    }
  }
  return make(token_kind::end, at_);
}

// The name an identifier token stands for: folded, or with its quotes undone; cut to PostgreSQL's
// 63 bytes. Allocates. U&"…" is given as written.
std::string identifier(std::string_view sql, const token&);
// The same without allocation, of a word or quoted name: in `buffer`, and empty if it is longer.
std::string_view folded(std::string_view sql, const token&, std::array<char, 64>& buffer);

}  // namespace pgsled::sql
