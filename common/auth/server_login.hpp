#pragma once
// server_login: our side of the start-up of one server connection: from the StartupMessage (TLS is
// already settled) up to the first ReadyForQuery. No socket, no clock; belongs to one thread. The
// server is untrusted: every message is length-checked, order is checked, at most 1 MiB is taken in
// all. Legal sequence, NoticeResponse between any two, ErrorResponse instead of any:
//   → StartupMessage ← NegotiateProtocolVersion?
//     ← AuthenticationOk
//     | ← AuthenticationCleartextPassword or MD5Password → PasswordMessage ← AuthenticationOk
//     | ← AuthenticationSASL → SASLInitialResponse ← SASLContinue → SASLResponse ← SASLFinal
//       ← AuthenticationOk
//   ← ParameterStatus* and BackendKeyData?, in any order ← ReadyForQuery
// A server that begins SCRAM must also end it: AuthenticationOk without its proof is refused. One
// that asks for the password in clear text, or for none, is obeyed as libpq does by default.

#include <memory>
#include <string>
#include <vector>

#include "common/auth/scram.hpp"
#include "common/wire/messages.hpp"

namespace pgsled::auth {

struct server_identity {
  std::string user, password, database;
  std::vector<std::pair<std::string, std::string>> startup;  // further parameters
};

class server_login {
 public:
  // `binding_data` as in scram_client.
  server_login(server_identity, std::string binding_data);
  void start(std::string& to_server);  // protocol 3.2 is not asked for; 3.0
  enum class outcome { more, ready, failed };
  // Consumes whole messages from `bytes` and says how many bytes that were; anything after
  // ReadyForQuery is left. On failed, `error` holds the server's own error (08006 where it has no
  // usable SQLSTATE) or ours: 08P01 for a breach of protocol, 08006 for a server that cannot be
  // agreed with, 28P01 when it wants a password and there is none. After it, as after ready, the
  // object refuses everything. Costs a PBKDF2 in the course of SCRAM.
  outcome receive(byte_span bytes, std::size_t& consumed, std::string& to_server, pg_error& error);

  // Both empty when the server sent no BackendKeyData: then it cannot be asked to cancel.
  std::uint32_t backend_pid() const { return pid_; }
  const std::string& secret() const { return secret_; }
  // In order of first report, each name once, with its last value.
  const std::vector<std::pair<std::string, std::string>>& parameters() const { return parameters_; }

 private:
  enum class step {
    begin, authentication, password_sent, sasl_first_sent, sasl_final_sent, sasl_done, parameters,
    over
  };
  // Each returns false after it has set the error.
  bool handle(char type, byte_span body, std::string& to_server, pg_error& error);
  bool handle_authentication(byte_span body, std::string& to_server, pg_error& error);
  bool answer_cleartext(byte_span data, std::string& to_server, pg_error& error);
  bool answer_md5(byte_span data, std::string& to_server, pg_error& error);
  bool answer_sasl(byte_span data, std::string& to_server, pg_error& error);
  bool continue_sasl(byte_span data, std::string& to_server, pg_error& error);
  bool handle_parameter(byte_span body, pg_error& error);
  bool handle_key(byte_span body, pg_error& error);
  bool handle_negotiate(byte_span body, pg_error& error);
  bool needs_password(pg_error& error) const;

  server_identity identity_;
  std::string binding_data_, secret_;
  std::vector<std::pair<std::string, std::string>> parameters_;
  std::unique_ptr<scram_client> scram_;
  std::uint32_t pid_ = 0;
  std::size_t taken_ = 0;  // bytes
  bool key_seen_ = false, ready_ = false, first_message_ = true;
  step step_ = step::begin;
};

}  // namespace pgsled::auth
