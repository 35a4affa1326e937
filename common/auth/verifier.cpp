#include <charconv>

#include "common/auth/crypto.hpp"
#include "common/auth/saslprep.hpp"
#include "common/auth/scram.hpp"

namespace pgsled::auth {

namespace {

constexpr std::string_view verifier_prefix = "SCRAM-SHA-256$";

// Cuts `rest` at the first `mark`; the part before it. Nothing when there is none.
std::optional<std::string_view> cut(std::string_view& rest, char mark) {
  const auto at = rest.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const auto part = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  return part;
}

}  // namespace

std::optional<scram_verifier> parse_verifier(std::string_view text) {
  if (!text.starts_with(verifier_prefix)) return std::nullopt;
  text.remove_prefix(verifier_prefix.size());
  const auto iterations = cut(text, ':');
  const auto salt = iterations ? cut(text, '$') : std::nullopt;
  const auto stored = salt ? cut(text, ':') : std::nullopt;
  if (!stored) return std::nullopt;

  scram_verifier verifier;
  const auto* end = iterations->data() + iterations->size();
  std::int32_t number = 0;  // PostgreSQL's is an int, and so is OpenSSL's
  const auto read = std::from_chars(iterations->data(), end, number);
  if (read.ec != std::errc() || read.ptr != end || number < 1) return std::nullopt;
  verifier.iterations = static_cast<std::uint32_t>(number);

  auto raw_salt = decode_base64(*salt);
  auto stored_key = decode_base64(*stored);
  auto server_key = decode_base64(text);
  if (!raw_salt || raw_salt->empty() || !stored_key || stored_key->size() != sha256_size ||
      !server_key || server_key->size() != sha256_size)
    return std::nullopt;
  verifier.salt = std::move(*raw_salt);
  verifier.stored_key = std::move(*stored_key);
  verifier.server_key = std::move(*server_key);
  return verifier;
}

std::string format_verifier(const scram_verifier& verifier) {
  return std::string(verifier_prefix) + std::to_string(verifier.iterations) + ':' +
         encode_base64(verifier.salt) + '$' + encode_base64(verifier.stored_key) + ':' +
         encode_base64(verifier.server_key);
}

scram_verifier make_verifier(std::string_view password, std::string_view salt,
                             std::uint32_t iterations) {
  const auto salted = pbkdf2_sha256(saslprep(password), salt, iterations);
  scram_verifier verifier;
  verifier.iterations = iterations;
  verifier.salt = salt;
  verifier.stored_key = sha256(hmac_sha256(salted, "Client Key"));
  verifier.server_key = hmac_sha256(salted, "Server Key");
  return verifier;
}

scram_verifier mock_verifier(std::string_view user, std::string_view secret_seed) {
  const auto derive = [&](std::string_view purpose) {
    return hmac_sha256(secret_seed, std::string(purpose).append(user));
  };
  scram_verifier verifier;
  verifier.salt = derive("salt:").substr(0, 16);  // PostgreSQL's salts are 16 bytes
  // To match it, a proof would have to be a pre-image of this.
  verifier.stored_key = derive("stored:");
  verifier.server_key = derive("server:");
  return verifier;
}

bool matches(const scram_verifier& verifier, std::string_view password) {
  const auto made = make_verifier(password, verifier.salt, verifier.iterations);
  return equal_in_constant_time(made.stored_key, verifier.stored_key);
}

}  // namespace pgsled::auth
