#pragma once
// The few primitives that SCRAM and MD5 authentication are built of. Internal to this library.

#include <cstdint>
#include <string>
#include <string_view>

namespace pgsled::auth {

inline constexpr std::size_t sha256_size = 32;

std::string sha256(std::string_view bytes);
std::string hmac_sha256(std::string_view key, std::string_view bytes);
std::string pbkdf2_sha256(std::string_view password, std::string_view salt,
                          std::uint32_t iterations);
// Bitwise; the two are of one length.
std::string exclusive_or(std::string_view, std::string_view);
// 32 characters, or empty where the crypto library forbids MD5.
std::string md5_hex(std::string_view bytes);

}  // namespace pgsled::auth
