#include "common/placement/value.hpp"

#include <algorithm>
#include <charconv>

namespace pgsled::placement {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// The first byte that is no longer part of the first `limit` characters.
std::size_t clip(std::string_view text, std::uint32_t limit, bool utf8) {
  if (!utf8) return std::min<std::size_t>(text.size(), limit);
  std::size_t at = 0;
  for (std::uint32_t seen = 0; at < text.size(); ++at) {
    const bool starts = (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80;
    if (starts && seen++ == limit) break;
  }
  return at;
}

result<value> text_value(std::string_view text, const text_rules& rules) {
  if (text.find('\0') != text.npos) {
    return failure("22021", "the value of the sharding key holds a zero byte");
  }
  const bool ascii = is_ascii(text);
  if (!ascii && rules.encoding == encoding::converted) {
    return failure("0A000",
                   "the sharding key has characters beyond ASCII, and which bytes the server makes "
                   "of them is not known",
                   "Set client_encoding to the server's encoding; keys in lists and ranges need a "
                   "database in UTF8.");
  }
  value found{key_type::varchar, 0, {}, text};
  // No text has more characters than bytes.
  if (rules.limit == 0 || text.size() <= rules.limit) return found;
  if (!ascii && rules.encoding == encoding::multi_byte) {
    return failure("0A000",
                   "the sharding key may be longer than its column, whose characters cannot be "
                   "counted in this encoding",
                   "Use a database in UTF8, or shorter keys.");
  }
  const auto end = clip(text, rules.limit, !ascii && rules.encoding == encoding::utf8);
  if (text.find_first_not_of(' ', end) == text.npos) found.text = text.substr(0, end);
  return found;
}

std::string shown(std::string_view text) {
  constexpr std::size_t longest = 64;
  const bool cut = text.size() > longest;
  return "\"" + std::string(text.substr(0, longest)) + (cut ? "…\"" : "\"");
}

tl::unexpected<pg_error> no_value(const char* type, form how, std::string_view bytes) {
  return failure("22P02",
                 how == form::text
                     ? std::string("invalid input for the sharding key, type ") + type + ": " +
                           shown(bytes)
                     : std::string("invalid binary input for the sharding key, type ") + type,
                 "The key decides which shard the statement goes to and must be readable.");
}

}  // namespace

std::optional<key_type> key_type_of(std::string_view name) {
  for (const auto type : {key_type::bigint, key_type::uuid, key_type::varchar}) {
    if (name_of(type) == name) return type;
  }
  return std::nullopt;
}

std::string_view name_of(key_type type) {
  switch (type) {
    case key_type::bigint: return "bigint";
    case key_type::uuid: return "uuid";
    case key_type::varchar: return "varchar";
  }
  return "";
}

encoding encoding_between(std::string_view client, std::string_view server) {
  // A server of SQL_ASCII takes bytes as they come; a client of SQL_ASCII sends the server's.
  if (server == "SQL_ASCII") return encoding::single_byte;
  if (server.empty() || (client != server && client != "SQL_ASCII")) return encoding::converted;
  if (server == "UTF8") return encoding::utf8;
  for (const std::string_view one : {"LATIN", "WIN", "ISO_8859_", "KOI8"}) {
    if (server.starts_with(one)) return encoding::single_byte;
  }
  return encoding::multi_byte;
}

result<value> normalise(key_type type, form how, std::string_view bytes, const text_rules& rules) {
  switch (type) {
    case key_type::bigint: {
      const auto number = how == form::binary ? bigint_from_binary(as_bytes(bytes))
                                              : bigint_from_text(bytes);
      if (number) return value{type, *number, {}, {}};
      return no_value("bigint", how, bytes);
    }
    case key_type::uuid: {
      value found{type, 0, {}, {}};
      if (how == form::binary && bytes.size() == found.uuid.size()) {
        std::copy_n(as_bytes(bytes).begin(), found.uuid.size(), found.uuid.begin());
        return found;
      }
      // The binary form of a parameter declared text and cast is its text, and never this short.
      const auto read = uuid_from_text(bytes);
      if (!read) return no_value("uuid", how, bytes);
      found.uuid = *read;
      return found;
    }
    case key_type::varchar: return text_value(bytes, rules);   // both forms are the same bytes
  }
  return failure("XX000", "unknown type of a sharding key");
}

std::optional<std::int64_t> bigint_from_text(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::int64_t> bigint_from_binary(byte_span bytes) {
  switch (bytes.size()) {
    case 2: return load_be<std::int16_t>(bytes.data());
    case 4: return load_be<std::int32_t>(bytes.data());
    case 8: return load_be<std::int64_t>(bytes.data());
    default: return std::nullopt;
  }
}

std::optional<std::array<std::uint8_t, 16>> uuid_from_text(std::string_view text) {
  if (text.starts_with('{')) {
    if (text.size() < 2 || !text.ends_with('}')) return std::nullopt;
    text = text.substr(1, text.size() - 2);
  }
  std::array<std::uint8_t, 16> bytes{};
  std::size_t at = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (text.size() - at < 2) return std::nullopt;
    const int high = hex_digit(text[at]), low = hex_digit(text[at + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
    at += 2;
    if (i % 2 == 1 && i + 1 < bytes.size() && at < text.size() && text[at] == '-') ++at;
  }
  if (at != text.size()) return std::nullopt;
  return bytes;
}

std::string uuid_to_text(const std::array<std::uint8_t, 16>& bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

}  // namespace pgsled::placement
