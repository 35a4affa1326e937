#pragma once
// characters: where characters end in the encodings in which a byte below 128 may belong to one
// that is longer. PostgreSQL 15 to 18 make the input into the server's encoding before they look
// for rows in it, so in there only whole characters may be looked at. Of bytes that are no
// character the server says so whatever is made of them here. Pure.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pgsled::copy {

// Never change or reuse a value.
enum class characters : std::uint8_t {
  bytes = 0,       // each byte below 128 is a character
  two_bytes = 1,   // BIG5, GBK, UHC: two, where the first is not ASCII
  shift_jis = 2,   // SJIS, SHIFT_JIS_2004: the same, but half-width katakana
  johab = 3,       // as PostgreSQL measures it
  gb18030 = 4,     // two, or four if the second is a digit
};

// Bytes of the character that begins with `first`; 0: the second one tells.
constexpr std::size_t length_of(characters kind, unsigned char first) {
  if (first < 0x80) return 1;
  switch (kind) {
    case characters::bytes: return 1;
    case characters::two_bytes: return 2;
    case characters::shift_jis: return first >= 0xa1 && first <= 0xdf ? 1 : 2;
    case characters::johab: return first == 0x8f ? 3 : 2;
    case characters::gb18030: return 0;
  }
  return 1;
}
constexpr std::size_t length_by_second(unsigned char second) {
  return second >= '0' && second <= '9' ? 4 : 2;
}
// Of the character at `at` in a text, which may end before it does.
constexpr std::size_t length_at(characters kind, std::string_view text, std::size_t at) {
  auto length = length_of(kind, static_cast<unsigned char>(text[at]));
  if (length == 0) {
    length = at + 1 < text.size() ? length_by_second(static_cast<unsigned char>(text[at + 1])) : 1;
  }
  return length < text.size() - at ? length : text.size() - at;
}

}  // namespace pgsled::copy
