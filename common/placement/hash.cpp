#include "common/placement/hash.hpp"

#include <openssl/sha.h>

#include <array>
#include <bit>
#include <charconv>

namespace pgsled::placement {
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

// The last four bytes of the digest: bytes are random all over, the end is PgDog's choice.
std::uint64_t sha1_tail(const std::uint8_t* at, std::size_t size) {
  std::array<std::uint8_t, SHA_DIGEST_LENGTH> digest;
  SHA1(at, size, digest.data());
  return load_be<std::uint32_t>(digest.data() + digest.size() - sizeof(std::uint32_t));
}

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

std::uint64_t sha1_bigint(std::int64_t value) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  return sha1_text({digits, static_cast<std::size_t>(end - digits)});
}

std::uint64_t sha1_text(std::string_view bytes) {
  return sha1_tail(as_bytes(bytes).data(), bytes.size());
}

std::uint64_t sha1_uuid(std::span<const std::uint8_t, 16> bytes) {
  return sha1_tail(bytes.data(), bytes.size());
}

}  // namespace pgsled::placement
