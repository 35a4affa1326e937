#include "common/auth/crypto.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>
#include <limits>

#include "common/auth/scram.hpp"
#include "common/base/bytes.hpp"

namespace pgsled::auth {

namespace {

unsigned char* bytes_of(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

int as_int(std::size_t size) {
  PGSLED_ASSERT(size <= static_cast<std::size_t>(std::numeric_limits<int>::max()));
  return static_cast<int>(size);
}

constexpr std::string_view base64_alphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint8_t not_base64 = 64;

// Six bits of each character. A table rather than a search: decoding the verifiers of a known user
// must not take a time that tells them from an unknown one.
constexpr auto base64_values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(not_base64);
  for (std::size_t i = 0; i < base64_alphabet.size(); ++i)
    values[static_cast<unsigned char>(base64_alphabet[i])] = static_cast<std::uint8_t>(i);
  return values;
}();

}  // namespace

std::string sha256(std::string_view bytes) {
  std::string digest(sha256_size, '\0');
  PGSLED_ASSERT(EVP_Digest(bytes.data(), bytes.size(), bytes_of(digest), nullptr, EVP_sha256(),
                           nullptr) == 1);
  return digest;
}

std::string hmac_sha256(std::string_view key, std::string_view bytes) {
  std::string digest(sha256_size, '\0');
  PGSLED_ASSERT(HMAC(EVP_sha256(), key.data(), as_int(key.size()), as_bytes(bytes).data(),
                     bytes.size(), bytes_of(digest), nullptr) != nullptr);
  return digest;
}

std::string pbkdf2_sha256(std::string_view password, std::string_view salt,
                          std::uint32_t iterations) {
  std::string key(sha256_size, '\0');
  PGSLED_ASSERT(iterations >= 1);
  PGSLED_ASSERT(PKCS5_PBKDF2_HMAC(password.data(), as_int(password.size()), as_bytes(salt).data(),
                                  as_int(salt.size()), as_int(iterations), EVP_sha256(),
                                  as_int(key.size()), bytes_of(key)) == 1);
  return key;
}

std::string exclusive_or(std::string_view left, std::string_view right) {
  PGSLED_ASSERT(left.size() == right.size());
  std::string mixed(left);
  for (std::size_t i = 0; i < mixed.size(); ++i)
    mixed[i] = static_cast<char>(static_cast<unsigned char>(mixed[i]) ^
                                 static_cast<unsigned char>(right[i]));
  return mixed;
}

std::string md5_hex(std::string_view bytes) {
  unsigned char digest[16];
  if (EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_md5(), nullptr) != 1) return {};
  std::string hex;
  hex.reserve(32);
  for (const unsigned char byte : digest) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

std::string md5_verifier(std::string_view user, std::string_view password) {
  const auto hex = md5_hex(std::string(password).append(user));
  return hex.empty() ? hex : "md5" + hex;
}

std::string md5_response(std::string_view verifier, std::string_view salt_of_four) {
  if (!verifier.starts_with("md5")) return {};
  const auto hex = md5_hex(std::string(verifier.substr(3)).append(salt_of_four));
  return hex.empty() ? hex : "md5" + hex;
}

bool equal_in_constant_time(std::string_view left, std::string_view right) {
  return left.size() == right.size() &&
         CRYPTO_memcmp(left.data(), right.data(), left.size()) == 0;
}

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  PGSLED_ASSERT(RAND_bytes(bytes_of(bytes), as_int(count)) == 1);
  return bytes;
}

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const auto group = bytes.substr(at, 3);
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < group.size() ? static_cast<unsigned char>(group[i]) : 0U);
    for (std::size_t i = 0; i < 4; ++i)
      text += i <= group.size() ? base64_alphabet[bits >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t at = 0; at < text.size(); at += 4) {
    auto group = text.substr(at, 4);
    const bool last = at + 4 == text.size();
    if (last && group.ends_with("==")) group.remove_suffix(2);
    else if (last && group.ends_with('=')) group.remove_suffix(1);
    std::uint32_t bits = 0;
    for (const char character : group) {
      const auto value = base64_values[static_cast<unsigned char>(character)];
      if (value == not_base64) return std::nullopt;
      bits = bits << 6 | value;
    }
    const auto loose = (4 - group.size()) * 2;  // bits beyond the last whole byte
    if (loose != 0 && (bits & ((1U << loose) - 1)) != 0) return std::nullopt;
    bits >>= loose;
    for (std::size_t left = group.size() - 1; left-- > 0;)
      bytes += static_cast<char>(bits >> (8 * left) & 255);
  }
  return bytes;
}

}  // namespace pgsled::auth
