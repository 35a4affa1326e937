#include "common/log/json_escape.hpp"

#include <fmt/format.h>

#include <iterator>

namespace pgsled::log {
namespace {

// Length of the UTF-8 sequence that starts at `at`, 0 if it is none (RFC 3629: no overlong forms,
// no surrogates, nothing above U+10FFFF).
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xE0 && second < 0xA0) return 0;
    if (first == 0xED && second > 0x9F) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xF0 && second < 0x90) return 0;
    if (first == 0xF4 && second > 0x8F) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

std::string json_escape(std::string_view text) {
  std::string to;
  to.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const std::size_t length = sequence_length(text, i);
    if (length == 0) {
      to += "\xEF\xBF\xBD";
      ++i;
    } else if (length > 1) {
      to.append(text, i, length);
      i += length;
    } else {
      switch (c) {
        case '"': to += "\\\""; break;
        case '\\': to += "\\\\"; break;
        case '\n': to += "\\n"; break;
        case '\r': to += "\\r"; break;
        case '\t': to += "\\t"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20)
            fmt::format_to(std::back_inserter(to), "\\u{:04x}", static_cast<unsigned>(c));
          else
            to += c;
      }
      ++i;
    }
  }
  return to;
}

void append_single_line(std::string& to, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') to += "\\n";
    else if (c == '\t') to += "\\t";
    else if (byte < 0x20 || byte == 0x7F) fmt::format_to(std::back_inserter(to), "\\x{:02x}", byte);
    else to += c;
  }
}

}  // namespace pgsled::log
