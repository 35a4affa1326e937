#include "services/cli/hash.hpp"

#include <fmt/format.h>

#include <array>

#include "common/plan/placement.hpp"

namespace pgsled::cli {
namespace {

// As uuid_in: 32 digits, a hyphen allowed after every fourth one, braces allowed around it all.
std::optional<std::array<std::uint8_t, 16>> uuid_from_text(std::string_view text) {
  if (text.starts_with('{')) {
    if (!text.ends_with('}')) return std::nullopt;
    text = text.substr(1, text.size() - 2);
  }
  std::array<std::uint8_t, 16> bytes{};
  std::size_t digits = 0;
  bool hyphen = false;  // just read
  for (const char c : text) {
    unsigned value = 0;
    if (c == '-') {
      if (digits == 0 || digits % 4 != 0 || digits == 32 || hyphen) return std::nullopt;
      hyphen = true;
      continue;
    }
    if (c >= '0' && c <= '9') value = static_cast<unsigned>(c - '0');
    else if (c >= 'a' && c <= 'f') value = static_cast<unsigned>(c - 'a') + 10;
    else if (c >= 'A' && c <= 'F') value = static_cast<unsigned>(c - 'A') + 10;
    else return std::nullopt;
    if (digits == 32) return std::nullopt;
    auto& byte = bytes[digits / 2];
    byte = static_cast<std::uint8_t>(static_cast<unsigned>(byte) << 4 | value);
    ++digits;
    hyphen = false;
  }
  if (digits != 32) return std::nullopt;
  return bytes;
}

std::optional<std::uint64_t> hash_of(std::string_view value, std::string_view type) {
  if (type == "varchar") return plan::hash_text(value);
  if (type == "uuid") {
    const auto bytes = uuid_from_text(value);
    return bytes ? std::optional(plan::hash_uuid(*bytes)) : std::nullopt;
  }
  const auto number = plan::bigint_from_text(value);
  return number ? std::optional(plan::hash_bigint(*number)) : std::nullopt;
}

}  // namespace

result<placement> place(std::string_view value, std::string_view type, std::uint32_t shards,
                        std::uint32_t buckets) {
  if (type != "bigint" && type != "varchar" && type != "uuid") {
    return failure("22023", fmt::format("unknown type \"{}\"", type),
                   "It is bigint, varchar or uuid.");
  }
  if (buckets != 0 && shards != 0 && buckets % shards != 0) {
    return failure("22023",
                   fmt::format("{} buckets are no multiple of {} shards", buckets, shards));
  }
  const auto hash = hash_of(value, type);
  if (!hash) {
    return failure("22P02", fmt::format("invalid input for type {}: \"{}\"", type, value));
  }
  placement to{*hash, {}, {}};
  const std::uint64_t count = buckets != 0 ? buckets : shards;
  if (count != 0) to.bucket = to.hash % count;
  if (shards != 0) to.shard = *to.bucket % shards;
  return to;
}

std::string render(const placement& of) {
  auto text = fmt::format("hash {0} (0x{0:016x})\n", of.hash);
  if (of.bucket) text += fmt::format("bucket {}\n", *of.bucket);
  if (of.shard) text += fmt::format("shard {}\n", *of.shard);
  return text;
}

}  // namespace pgsled::cli
