#include <algorithm>
#include <charconv>

#include "common/auth/crypto.hpp"
#include "common/auth/saslprep.hpp"
#include "common/auth/scram.hpp"
#include "common/auth/scram_text.hpp"

namespace pgsled::auth {

namespace {

tl::unexpected<pg_error> malformed(std::string detail) {
  return tl::unexpected<pg_error>(
      pg_error{"08P01", "malformed SCRAM message from the server", {}, std::move(detail)});
}

constexpr std::size_t nonce_bytes = 18;

// RFC 5802, saslname: what would end the attribute is written in code.
std::string escaped(std::string_view user) {
  std::string text;
  for (const char character : user) {
    if (character == ',') text += "=2C";
    else if (character == '=') text += "=3D";
    else text += character;
  }
  return text;
}

}  // namespace

scram_client::scram_client(std::string password, std::string binding_data, std::string nonce)
    : password_(std::move(password)),
      binding_data_(std::move(binding_data)),
      nonce_(nonce.empty() ? encode_base64(random_bytes(nonce_bytes)) : std::move(nonce)) {}

result<std::string> scram_client::choose(const std::vector<std::string>& mechanisms) {
  const auto offered = [&](std::string_view name) {
    return std::find(mechanisms.begin(), mechanisms.end(), name) != mechanisms.end();
  };
  if (!binding_data_.empty() && offered(mechanism_plus)) {
    mechanism_ = mechanism_plus;
    gs2_header_ = "p=" + std::string(binding_type) + ",,";
  } else if (offered(mechanism_plain)) {
    mechanism_ = mechanism_plain;
    // 'y' tells a server that did offer PLUS that its offer was taken out on the way.
    gs2_header_ = binding_data_.empty() ? "n,," : "y,,";
  } else {
    return failure("08006", "the server offers no SASL mechanism that is supported here",
                   "Supported are SCRAM-SHA-256, and SCRAM-SHA-256-PLUS over TLS.");
  }
  return mechanism_;
}

std::string scram_client::first(std::string_view user) {
  client_first_bare_ = "n=" + escaped(user) + ",r=" + nonce_;
  return gs2_header_ + client_first_bare_;
}

result<std::string> scram_client::proof(std::string_view server_first) {
  if (client_first_bare_.empty() || !server_signature_.empty())
    return malformed("It comes out of order.");
  if (server_first.size() > max_scram_message) return malformed("It is too long.");
  auto rest = server_first;
  const auto nonce = take_attribute(rest, 'r');
  if (!nonce || !printable(*nonce)) return malformed("The nonce is missing or not printable.");
  if (!nonce->starts_with(nonce_) || nonce->size() == nonce_.size())
    return malformed("The nonce does not continue ours.");
  const auto coded_salt = take_attribute(rest, 's');
  const auto salt = coded_salt ? decode_base64(*coded_salt) : std::nullopt;
  if (!salt || salt->empty()) return malformed("The salt is missing or not base64.");
  const auto count = take_attribute(rest, 'i');
  if (!count || !rest.empty()) return malformed("The iteration count is missing or not the last.");
  std::uint32_t iterations = 0;
  const auto* end = count->data() + count->size();
  const auto read = std::from_chars(count->data(), end, iterations);
  if (read.ptr != end || read.ec == std::errc::invalid_argument || count->empty())
    return malformed("The iteration count is not a number.");
  if (read.ec != std::errc() || iterations < 1 || iterations > max_scram_iterations)
    return failure("08006", "the server asks for a number of SCRAM iterations that is not between "
                            "1 and " + std::to_string(max_scram_iterations));

  const auto bound = mechanism_ == mechanism_plus ? gs2_header_ + binding_data_ : gs2_header_;
  const auto without_proof = "c=" + encode_base64(bound) + ",r=" + std::string(*nonce);
  const auto message =
      client_first_bare_ + ',' + std::string(server_first) + ',' + without_proof;
  const auto salted = pbkdf2_sha256(saslprep(password_), *salt, iterations);
  const auto client_key = hmac_sha256(salted, "Client Key");
  const auto signature = hmac_sha256(sha256(client_key), message);
  server_signature_ = hmac_sha256(hmac_sha256(salted, "Server Key"), message);
  return without_proof + ",p=" + encode_base64(exclusive_or(client_key, signature));
}

result<bool> scram_client::verify(std::string_view server_final) {
  if (server_signature_.empty()) return malformed("It comes out of order.");
  if (server_final.size() > max_scram_message) return malformed("It is too long.");
  auto rest = server_final;
  if (take_attribute(rest, 'e'))
    return failure("08006", "the server ended the SCRAM exchange with an error");
  const auto coded = take_attribute(rest, 'v');
  const auto signature = coded && rest.empty() ? decode_base64(*coded) : std::nullopt;
  if (!signature) return malformed("The signature is missing or not base64.");
  if (!equal_in_constant_time(*signature, server_signature_))
    return failure("08006", "the server has not proven that it knows the password",
                   "It may not be the server it claims to be.");
  return true;
}

}  // namespace pgsled::auth
