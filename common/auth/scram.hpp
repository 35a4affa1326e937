#pragma once
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 5929 tls-server-end-point) for
// both ends, and PostgreSQL's verifier format. Crypto from OpenSSL. Machines without I/O: texts in,
// texts out. An object belongs to one thread; functions may be called from any.
//
// Passwords are prepared as PostgreSQL does it (saslprep.hpp) before they are hashed.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::auth {

// PBKDF2 costs about half a microsecond an iteration, on the thread that serves everybody else:
// more than this a server may not ask of us. PostgreSQL's default is 4096.
inline constexpr std::uint32_t max_scram_iterations = 1'000'000;
// PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH, for either end's messages.
inline constexpr std::size_t max_scram_message = 1024;

struct scram_verifier {
  std::uint32_t iterations = 4096;
  std::string salt, stored_key, server_key;  // raw bytes
};
// "SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>" as in pg_authid.
std::optional<scram_verifier> parse_verifier(std::string_view text);
std::string format_verifier(const scram_verifier&);
// `iterations` at least 1. Costs a PBKDF2.
scram_verifier make_verifier(std::string_view password, std::string_view salt,
                             std::uint32_t iterations = 4096);
// For a user that does not exist: same salt every time for a name, never matches. `secret_seed`:
// at least 16 random bytes that outsiders do not know and that all processes share (else the salt
// tells which names are made up). 4096 iterations, PostgreSQL's default: users whose verifiers have
// another number can be told from it, as with PostgreSQL.
scram_verifier mock_verifier(std::string_view user, std::string_view secret_seed);
// True when `password` is the one the verifier was made of. Costs a PBKDF2.
bool matches(const scram_verifier&, std::string_view password);

// The server's end: client-first → server-first, client-final → server-final.
class scram_server {
 public:
  // All verifiers share salt and iterations (several accepted passwords) or only the first counts:
  // those that differ from the first are left out. Without any, nobody gets in.
  // `binding_data` is the tls-server-end-point hash; empty: channel binding is not offered.
  // `nonce` is for tests; empty: random.
  scram_server(std::vector<scram_verifier> verifiers, std::string binding_data,
               std::string nonce = {});
  // 08P01 on bad form, 28000 when the client was made to believe that there is no PLUS, 0A000 for
  // what PostgreSQL does not support either.
  result<std::string> first(std::string_view mechanism, std::string_view client_first);
  // 28P01 on a wrong proof, 28000 when the channel is another, 08P01 on bad form.
  result<std::string> final(std::string_view client_final);

 private:
  std::vector<scram_verifier> verifiers_;
  std::string binding_data_, client_first_bare_, server_first_, nonce_, gs2_header_;
  bool plus_ = false;
};

// The client's end.
class scram_client {
 public:
  // `nonce` is for tests; empty: random.
  scram_client(std::string password, std::string binding_data, std::string nonce = {});
  // Chooses from the server's list; 08006 when none fits.
  result<std::string> choose(const std::vector<std::string>& mechanisms);  // mechanism name
  // PostgreSQL takes the user from the StartupMessage and ignores the one given here.
  std::string first(std::string_view user = {});
  // 08P01 on bad form, 08006 on a number of iterations out of bounds. Costs a PBKDF2.
  result<std::string> proof(std::string_view server_first);  // client-final
  // 08006 when the server has not proven that it knows the password.
  result<bool> verify(std::string_view server_final);

 private:
  std::string password_, binding_data_, mechanism_, nonce_, client_first_bare_, gs2_header_,
      server_signature_;
};

// "md5" + hex, or empty where the crypto library forbids MD5.
std::string md5_verifier(std::string_view user, std::string_view password);
std::string md5_response(std::string_view verifier, std::string_view salt_of_four);
// Takes a time that depends on the lengths only.
bool equal_in_constant_time(std::string_view, std::string_view);
std::string random_bytes(std::size_t count);  // RAND_bytes; aborts if the generator fails

// Standard alphabet, padded. Decoding refuses everything else, blanks and loose bits included.
std::string encode_base64(std::string_view bytes);
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace pgsled::auth
