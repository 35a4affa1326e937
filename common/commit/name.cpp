#include "common/commit/name.hpp"

#include <fmt/format.h>

#include <charconv>

namespace pgsled::commit {

namespace {

bool hex(std::string_view text, std::size_t least, std::size_t most) {
  return text.size() >= least && text.size() <= most &&
         text.find_first_not_of("0123456789abcdef") == text.npos;
}

// Up to the next `_`, which is taken off as well; false when there is none.
bool part(std::string_view& rest, std::string_view& to) {
  const auto end = rest.find('_');
  if (end == rest.npos) return false;
  to = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return true;
}

bool plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-';
}

std::string encode(std::string_view text) {
  std::string made;
  for (const char c : text) {
    if (plain(c)) {
      made += c;
    } else {
      made += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    }
  }
  return made;
}

std::optional<std::string> decode(std::string_view text) {
  std::string made;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      if (!plain(text[i])) return std::nullopt;
      made += text[i];
      continue;
    }
    if (text.size() - i < 3 || !hex(text.substr(i + 1, 2), 2, 2)) return std::nullopt;
    unsigned value = 0;
    std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    made += static_cast<char>(value);
    i += 2;
  }
  return made;
}

std::optional<std::uint32_t> shard_number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string make_id(const std::array<std::uint8_t, 16>& random) {
  std::string made;
  for (const std::uint8_t byte : random) made += fmt::format("{:02x}", byte);
  return made;
}

bool is_mark(std::string_view text) {
  std::string_view pid, xid;
  return part(text, pid) && part(text, xid) && hex(pid, 1, 8) && hex(xid, 1, 16) &&
         hex(text, 1, 16);
}

result<std::string> make_gid(const name& of, std::uint32_t participant) {
  if (!is_mark(of.mark) || !hex(of.id, 32, 32)) {
    return failure("XX000", "the coordinator's server named its transaction in no known way");
  }
  std::string made = fmt::format("{}{}_{}_{}_{}", gid_prefix, of.coordinator, participant,
                                 of.key(), encode(of.database));
  if (made.size() > max_gid) {
    return failure("0A000", "the name of the database is too long for a commit in two phases");
  }
  return made;
}

std::optional<parsed_gid> parse_gid(std::string_view text) {
  if (text.size() > max_gid || !text.starts_with(gid_prefix)) return std::nullopt;
  text.remove_prefix(gid_prefix.size());
  std::string_view coordinator, participant, pid, xid, deadline, id;
  if (!part(text, coordinator) || !part(text, participant) || !part(text, pid) ||
      !part(text, xid) || !part(text, deadline) || !part(text, id)) {
    return std::nullopt;
  }
  parsed_gid made;
  made.of.mark = fmt::format("{}_{}_{}", pid, xid, deadline);
  made.of.id = id;
  const auto of = shard_number(coordinator), on = shard_number(participant);
  auto database = decode(text);
  if (!of || !on || !is_mark(made.of.mark) || !hex(id, 32, 32) || !database) return std::nullopt;
  made.of.coordinator = *of;
  made.participant = *on;
  made.of.database = std::move(*database);
  return made;
}

}  // namespace pgsled::commit
