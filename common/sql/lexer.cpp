#include "common/sql/lexer.hpp"

#include <algorithm>

namespace pgsled::sql {
namespace {

using detail::class_of;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool fits_int8(std::string_view digits) {
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
  constexpr std::string_view largest = "9223372036854775807";
  return digits.size() < largest.size() || (digits.size() == largest.size() && digits <= largest);
}

// Comments that steer a planner: pg_hint_plan's, PgDog's and our own.
bool is_hint(std::string_view comment) {
  comment.remove_prefix(2);
  if (comment.starts_with('+')) return true;
  while (!comment.empty() && class_of(comment.front()) & detail::blank) comment.remove_prefix(1);
  return comment.starts_with("pgdog_") || comment.starts_with("pgsled_");
}

}  // namespace

void lexer::skip_line() {
  while (at_ < n_ && p_[at_] != '\n' && p_[at_] != '\r') ++at_;
}

// Block comments nest. True: it was a hint and is to be given out.
bool lexer::block_comment(token& hint) {
  const std::uint32_t begin = at_;
  unsigned depth = 0;
  while (at_ < n_) {
    if (p_[at_] == '/' && peek(at_ + 1) == '*') {
      ++depth;
      at_ += 2;
    } else if (p_[at_] == '*' && peek(at_ + 1) == '/') {
      at_ += 2;
      if (--depth == 0) break;
    } else {
      ++at_;
    }
  }
  if (depth != 0) unterminated_ = true;
  if (!hints_ || depth != 0 || !is_hint({p_ + begin, at_ - begin})) return false;
  hint = make(token_kind::hint, begin);
  return true;
}

// After a closing quote: white space with a line break in it and another quote join the strings.
bool lexer::continues(std::uint32_t& at) const {
  bool line_break = false;
  while (at < n_) {
    const char c = p_[at];
    if (c == '\n' || c == '\r') {
      line_break = true;
      ++at;
    } else if (class_of(c) & detail::blank) {
      ++at;
    } else if (c == '-' && peek(at + 1) == '-') {
      while (at < n_ && p_[at] != '\n' && p_[at] != '\r') ++at;
    } else {
      return c == '\'' && line_break;
    }
  }
  return false;
}

// at_ is on the opening quote; `begin` may lie before it (prefix).
token lexer::quote(std::uint32_t begin, bool escapes, token_kind kind, bool doubles) {
  ++at_;
  while (true) {
    const void* found = at_ < n_ ? std::memchr(p_ + at_, '\'', n_ - at_) : nullptr;
    std::uint32_t close =
        found ? static_cast<std::uint32_t>(static_cast<const char*>(found) - p_) : n_;
    if (escapes) {
      const void* escape = at_ < close ? std::memchr(p_ + at_, '\\', close - at_) : nullptr;
      if (escape) {
        at_ = static_cast<std::uint32_t>(static_cast<const char*>(escape) - p_) + 2;
        if (kind == token_kind::text) backslash_ = true;
        kind = token_kind::other_text;
        if (at_ <= n_) continue;
        close = n_;
      }
    }
    if (close >= n_) {
      at_ = n_;
      unterminated_ = true;
      return make(token_kind::other_text, begin);
    }
    at_ = close + 1;
    if (doubles && peek(at_) == '\'') {
      ++at_;
      continue;
    }
    std::uint32_t next = at_;
    if (!continues(next)) return make(kind, begin);
    kind = token_kind::other_text;
    at_ = next + 1;
  }
}

token lexer::double_quote(std::uint32_t begin, token_kind kind) {
  ++at_;
  while (at_ < n_) {
    if (p_[at_++] != '"') continue;
    if (peek(at_) != '"') return make(kind, begin);
    ++at_;
  }
  unterminated_ = true;
  return make(kind, begin);
}

// A letter followed by ' or &: E'' B'' X'' N'' U&'' U&"", else an ordinary word.
token lexer::prefixed() {
  const std::uint32_t begin = at_;
  const char letter = fold(p_[at_]);
  if (p_[at_ + 1] == '\'') {
    if (letter != 'e' && letter != 'b' && letter != 'x' && letter != 'n') return word();
    ++at_;
    const bool bits = letter == 'b' || letter == 'x';  // there, two quotes are an end and a start
    return quote(begin, letter == 'e' || (letter == 'n' && !standard_), token_kind::other_text,
                 !bits);
  }
  if (letter != 'u') return word();
  const char after = peek(at_ + 2);
  if (after != '\'' && after != '"') return word();
  at_ += 2;
  return after == '"' ? double_quote(begin, token_kind::unicode_id)
                      : quote(begin, false, token_kind::other_text);
}

token lexer::number() {
  const std::uint32_t begin = at_;
  bool whole = true;
  while (at_ < n_ && is_digit(p_[at_])) ++at_;
  if (peek(at_) == '.' && !(at_ > begin && peek(at_ + 1) == '.')) {  // 1..2 is 1 .. 2
    whole = false;
    ++at_;
    while (at_ < n_ && is_digit(p_[at_])) ++at_;
  }
  if (fold(peek(at_)) == 'e') {
    std::uint32_t digits = at_ + 1;
    if (peek(digits) == '+' || peek(digits) == '-') ++digits;
    if (is_digit(peek(digits))) {
      whole = false;
      at_ = digits;
      while (at_ < n_ && is_digit(p_[at_])) ++at_;
    }
  }
  if (at_ < n_ && class_of(p_[at_]) & detail::id_start) {
    while (at_ < n_ && class_of(p_[at_]) & detail::id_more) ++at_;
    return make(token_kind::junk, begin);
  }
  const bool small = whole && (at_ - begin < 19 || fits_int8({p_ + begin, at_ - begin}));
  return make(small ? token_kind::integer : token_kind::number, begin);
}

// $n, $$…$$, $tag$…$tag$, or a lone dollar sign.
token lexer::dollar() {
  const std::uint32_t begin = at_++;
  if (is_digit(peek(at_))) {
    while (at_ < n_ && is_digit(p_[at_])) ++at_;
    if (!(at_ < n_ && class_of(p_[at_]) & detail::id_start)) {
      return make(token_kind::parameter, begin);
    }
    while (at_ < n_ && class_of(p_[at_]) & detail::id_more) ++at_;
    return make(token_kind::junk, begin);
  }
  std::uint32_t tag = at_;
  if (tag < n_ && class_of(p_[tag]) & detail::id_start) {
    while (tag < n_ && class_of(p_[tag]) & detail::id_more && p_[tag] != '$') ++tag;
  }
  if (peek(tag) != '$') return make(token_kind::symbol, begin, '$');
  const std::string_view all{p_, n_};
  const std::string_view delimiter = all.substr(begin, tag + 1 - begin);
  const auto close = all.find(delimiter, tag + 1);
  if (close == std::string_view::npos) {
    unterminated_ = true;
    at_ = n_;
  } else {
    at_ = static_cast<std::uint32_t>(close + delimiter.size());
  }
  return make(token_kind::other_text, begin);
}

token lexer::operators() {
  const std::uint32_t begin = at_;
  std::uint32_t end = begin;
  while (end < n_ && class_of(p_[end]) & detail::op) {
    const char after = peek(end + 1);
    if (end > begin && ((p_[end] == '/' && after == '*') || (p_[end] == '-' && after == '-'))) {
      break;
    }
    ++end;
  }
  // As the SQL standard wants it, "=-" is two operators; "@-" is one of PostgreSQL's.
  const std::string_view special = "~!@#^&|`?%";
  const auto is_sign = [](char c) { return c == '+' || c == '-'; };
  if (end - begin > 1 && is_sign(p_[end - 1]) &&
      std::string_view{p_ + begin, end - begin - 1}.find_first_of(special) ==
          std::string_view::npos) {
    do {
      --end;
    } while (end - begin > 1 && is_sign(p_[end - 1]));
  }
  at_ = end;
  return make(token_kind::symbol, begin, word_code({p_ + begin, end - begin}));
}

token lexer::punctuation() {
  const std::uint32_t begin = at_;
  const char c = p_[at_], after = peek(at_ + 1);
  if (c == '.' && is_digit(after)) return number();
  const bool two = (c == ':' && (after == ':' || after == '=')) || (c == '.' && after == '.');
  at_ += two ? 2 : 1;
  return make(token_kind::symbol, begin, word_code({p_ + begin, at_ - begin}));
}

std::string identifier(std::string_view sql, const token& token) {
  std::string name{sql.substr(token.begin, token.size())};
  if (token.kind == token_kind::word) {
    std::transform(name.begin(), name.end(), name.begin(), fold);
  } else if (token.kind == token_kind::quoted && name.size() >= 2) {
    std::string plain;
    for (std::size_t i = 1; i + 1 < name.size(); ++i) {
      plain += name[i];
      if (name[i] == '"') ++i;
    }
    name = std::move(plain);
  }
  constexpr std::size_t longest = 63;
  if (name.size() > longest) {
    std::size_t cut = longest;  // never inside a UTF-8 sequence
    while (cut > 0 && (static_cast<std::uint8_t>(name[cut]) & 0xc0) == 0x80) --cut;
    name.resize(cut);
  }
  return name;
}

std::string_view folded(std::string_view sql, const token& t, std::array<char, 64>& buffer) {
  const bool quoted = t.kind == token_kind::quoted;
  const std::uint32_t size = quoted ? t.size() - std::min(t.size(), 2u) : t.size();
  if (size > buffer.size()) return {};
  for (std::uint32_t i = 0; i < size; ++i) {
    const char c = sql[t.begin + i + (quoted ? 1 : 0)];
    buffer[i] = quoted ? c : fold(c);
  }
  return {buffer.data(), size};
}

}  // namespace pgsled::sql
