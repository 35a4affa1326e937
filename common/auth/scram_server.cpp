#include "common/auth/crypto.hpp"
#include "common/auth/scram.hpp"
#include "common/auth/scram_text.hpp"

namespace pgsled::auth {

namespace {

tl::unexpected<pg_error> malformed(std::string detail) {
  return tl::unexpected<pg_error>(
      pg_error{"08P01", "malformed SCRAM message", {}, std::move(detail)});
}

// PostgreSQL's server nonce is 18 random bytes in base64.
constexpr std::size_t nonce_bytes = 18;

}  // namespace

scram_server::scram_server(std::vector<scram_verifier> verifiers, std::string binding_data,
                           std::string nonce)
    : verifiers_(std::move(verifiers)),
      binding_data_(std::move(binding_data)),
      nonce_(nonce.empty() ? encode_base64(random_bytes(nonce_bytes)) : std::move(nonce)) {
  if (verifiers_.empty()) verifiers_.push_back(mock_verifier({}, random_bytes(sha256_size)));
  const auto salt = verifiers_.front().salt;
  const auto iterations = verifiers_.front().iterations;
  std::erase_if(verifiers_, [&](const scram_verifier& each) {
    return each.salt != salt || each.iterations != iterations;
  });
}

result<std::string> scram_server::first(std::string_view mechanism,
                                        std::string_view client_first) {
  if (!server_first_.empty()) return malformed("The exchange has begun already.");
  if (client_first.size() > max_scram_message) return malformed("It is too long.");
  plus_ = mechanism == mechanism_plus && !binding_data_.empty();
  if (!plus_ && mechanism != mechanism_plain)
    return failure("08P01", "client selected an invalid SASL authentication mechanism");

  // gs2-header: how the client binds to the channel, then the identity it wants to act as.
  auto rest = client_first;
  const char flag = rest.empty() ? '\0' : rest[0];
  if (flag == 'p') {
    const auto type = take_attribute(rest, 'p');
    if (!plus_) return malformed("Channel binding needs SCRAM-SHA-256-PLUS.");
    if (!type || *type != binding_type)
      return failure("08P01", "unsupported SCRAM channel-binding type");
  } else if (flag == 'n' || flag == 'y') {
    if (plus_) return malformed("SCRAM-SHA-256-PLUS needs channel binding.");
    // 'y': it could bind, and saw no offer. There was one, so somebody has taken it out.
    if (flag == 'y' && !binding_data_.empty())
      return tl::unexpected<pg_error>(
          pg_error{"28000", "SCRAM channel binding negotiation error", {},
                   "The client saw no offer of channel binding, though one was made."});
    if (rest.size() < 2 || rest[1] != ',') return malformed("A comma is missing.");
    rest.remove_prefix(2);
  } else {
    return malformed("The channel-binding flag is unknown.");
  }
  if (rest.starts_with("a="))
    return failure("0A000", "client uses authorization identity, but it is not supported");
  if (!rest.starts_with(',')) return malformed("A comma is missing.");
  rest.remove_prefix(1);
  gs2_header_ = client_first.substr(0, client_first.size() - rest.size());
  client_first_bare_ = rest;

  if (rest.starts_with("m="))
    return failure("0A000", "client requires an unsupported SCRAM extension");
  // The user is the StartupMessage's; what stands here is ignored, as PostgreSQL does.
  if (!take_attribute(rest, 'n')) return malformed("The user name is missing.");
  const auto client_nonce = take_attribute(rest, 'r');
  if (!client_nonce || !printable(*client_nonce)) return malformed("The nonce is not printable.");

  nonce_.insert(0, *client_nonce);
  server_first_ = "r=" + nonce_ + ",s=" + encode_base64(verifiers_.front().salt) +
                  ",i=" + std::to_string(verifiers_.front().iterations);
  return server_first_;
}

result<std::string> scram_server::final(std::string_view client_final) {
  if (server_first_.empty()) return malformed("The exchange has not begun.");
  if (client_final.size() > max_scram_message) return malformed("It is too long.");

  auto rest = client_final;
  const auto binding = take_attribute(rest, 'c');
  if (!binding) return malformed("The channel binding is missing.");
  const auto bound = plus_ ? gs2_header_ + binding_data_ : gs2_header_;
  if (!equal_in_constant_time(*binding, encode_base64(bound))) {
    if (plus_) return failure("28000", "SCRAM channel binding check failed");
    return malformed("The channel binding is not that of the first message.");
  }
  const auto nonce = take_attribute(rest, 'r');
  if (!nonce || *nonce != nonce_) return malformed("The nonce does not match.");
  // Extensions may stand between nonce and proof; the proof comes last.
  while (!rest.starts_with("p=")) {
    if (rest.empty() || !take_attribute(rest, rest[0])) return malformed("The proof is missing.");
  }
  // Everything before ",p=", which the comma that take_attribute() ate belongs to.
  const auto without_proof = client_final.substr(0, client_final.size() - rest.size() - 1);
  const auto proof = decode_base64(rest.substr(2));
  if (!proof || proof->size() != sha256_size) return malformed("The proof is not of 32 bytes.");

  const auto message =
      client_first_bare_ + ',' + server_first_ + ',' + std::string(without_proof);
  // No early way out: neither which password it was nor that it was none shows in the time.
  std::string signature;
  bool found = false;
  for (const auto& each : verifiers_) {
    const auto client_key = exclusive_or(*proof, hmac_sha256(each.stored_key, message));
    const bool equal = equal_in_constant_time(sha256(client_key), each.stored_key);
    auto server_signature = hmac_sha256(each.server_key, message);
    if (equal) signature = std::move(server_signature);
    found = found || equal;
  }
  if (!found) return failure("28P01", "password authentication failed");
  return "v=" + encode_base64(signature);
}

}  // namespace pgsled::auth
