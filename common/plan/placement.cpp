#include "common/plan/placement.hpp"

#include <bit>
#include <charconv>

namespace pgsled::plan {
namespace {

constexpr std::uint64_t hash_partition_seed = 0x7a5b22367996dcfd;

// Bob Jenkins, lookup3.c (public domain, May 2006), as in PostgreSQL's hashfn.c.
struct state {
  std::uint32_t a, b, c;

  explicit state(std::size_t length) {
    a = b = c = 0x9e3779b9u + static_cast<std::uint32_t>(length) + 3923095u;
    a += static_cast<std::uint32_t>(hash_partition_seed >> 32);
    b += static_cast<std::uint32_t>(hash_partition_seed);
    mix();
  }
  void mix() {
    a -= c; a ^= std::rotl(c, 4);  c += b;
    b -= a; b ^= std::rotl(a, 6);  a += c;
    c -= b; c ^= std::rotl(b, 8);  b += a;
    a -= c; a ^= std::rotl(c, 16); c += b;
    b -= a; b ^= std::rotl(a, 19); a += c;
    c -= b; c ^= std::rotl(b, 4);  b += a;
  }
  std::uint64_t finish() {
    c ^= b; c -= std::rotl(b, 14);
    a ^= c; a -= std::rotl(c, 11);
    b ^= a; b -= std::rotl(a, 25);
    c ^= b; c -= std::rotl(b, 16);
    a ^= c; a -= std::rotl(c, 4);
    b ^= a; b -= std::rotl(a, 14);
    c ^= b; c -= std::rotl(b, 24);
    return std::uint64_t{b} << 32 | c;
  }
};

// hash_combine64 of the partition code with an initial row hash of 0.
std::uint64_t combined(std::uint64_t hash) { return hash + 0x49a0f4dd15e5a8e3; }

std::uint64_t hash_bytes(const std::uint8_t* at, std::size_t size) {
  state s{size};
  for (; size >= 12; at += 12, size -= 12) {
    s.a += load_le<std::uint32_t>(at);
    s.b += load_le<std::uint32_t>(at + 4);
    s.c += load_le<std::uint32_t>(at + 8);
    s.mix();
  }
  // The last word's lowest byte is reserved for the length, which is in the initial state already.
  std::uint8_t rest[12] = {};
  if (size > 0) std::memcpy(rest, at, size);
  s.a += load_le<std::uint32_t>(rest);
  s.b += load_le<std::uint32_t>(rest + 4);
  s.c += load_le<std::uint32_t>(rest + 8) << 8;
  return s.finish();
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

std::uint64_t hash_bigint(std::int64_t value) {
  // As hashint8extended: values of int4 hash alike whatever the width of their type.
  const auto bits = static_cast<std::uint64_t>(value);
  const auto high = static_cast<std::uint32_t>(bits >> 32);
  state s{sizeof(std::uint32_t)};
  s.a += static_cast<std::uint32_t>(bits) ^ (value >= 0 ? high : ~high);
  return combined(s.finish());
}

std::uint64_t hash_text(std::string_view bytes) {
  return combined(hash_bytes(as_bytes(bytes).data(), bytes.size()));
}

std::uint64_t hash_uuid(std::span<const std::uint8_t, 16> bytes) {
  return combined(hash_bytes(bytes.data(), bytes.size()));
}

std::optional<std::int64_t> bigint_from_text(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> bigint_from_binary(byte_span bytes) {
  switch (bytes.size()) {
    case 2: return load_be<std::int16_t>(bytes.data());
    case 4: return load_be<std::int32_t>(bytes.data());
    case 8: return load_be<std::int64_t>(bytes.data());
    default: return std::nullopt;
  }
}

}  // namespace pgsled::plan
