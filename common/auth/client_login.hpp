#pragma once
// client_login: the server's side of the start-up of one client, after the StartupMessage has been
// read and up to AuthenticationOk. No socket, no clock; belongs to one thread. Legal sequence:
//   trust:  → AuthenticationOk
//   plain:  → AuthenticationCleartextPassword ← PasswordMessage
//   md5:    → AuthenticationMD5Password       ← PasswordMessage
//   scram:  → AuthenticationSASL ← SASLInitialResponse → SASLContinue ← SASLResponse → SASLFinal
// and AuthenticationOk. An unknown user goes through the same exchange as a known one, which costs
// the same work, and fails at its end. `plain` costs a PBKDF2 (about a millisecond at 4096
// iterations) on the caller's thread; the others cost microseconds.

#include <memory>
#include <string>
#include <vector>

#include "common/auth/scram.hpp"
#include "common/wire/messages.hpp"

namespace pgsled::auth {

struct credentials {
  std::string user;
  // scram, md5, plain or trust; anything else is scram. As in PostgreSQL, md5 becomes scram for a
  // user of whom there are SCRAM verifiers only, and trust lets no unknown user in (it is scram
  // then).
  std::string method = "scram";
  bool known = true;                    // false: mock exchange
  std::vector<std::string> verifiers;   // SCRAM verifiers (also used to check a plain password)
  std::vector<std::string> md5;         // md5 verifiers
};

class client_login {
 public:
  // `binding_data` as in scram_server, `mock_seed` as in mock_verifier().
  client_login(credentials, std::string binding_data, std::string mock_seed);
  // Appends what to send first. Returns true when the client is already in (trust).
  bool start(std::string& to_client);
  enum class outcome { more, accepted, failed };
  // The body of one complete message of type 'p' (any other type is the caller's to refuse, 08P01).
  // On failed, `error` is what to send as FATAL (28P01, 08P01, 28000, 0A000); the object then
  // refuses everything. On accepted, AuthenticationOk has been appended.
  outcome receive(byte_span body, std::string& to_client, pg_error& error);

 private:
  enum class step { begin, password, md5, sasl_mechanism, sasl_first, sasl_final, over };
  enum class check { more, good, bad };
  check receive_password(byte_span body, pg_error& error);
  check receive_md5(byte_span body, pg_error& error);
  check receive_mechanism(byte_span body, std::string& to_client, pg_error& error);
  check receive_first(std::string_view client_first, std::string& to_client, pg_error& error);
  check receive_final(std::string_view client_final, std::string& to_client, pg_error& error);
  std::vector<scram_verifier> verifiers() const;
  pg_error refusal() const;

  credentials credentials_;
  std::string binding_data_, mock_seed_, md5_salt_, mechanism_;
  std::unique_ptr<scram_server> scram_;
  step step_ = step::begin;
};

}  // namespace pgsled::auth
