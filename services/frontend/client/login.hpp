#pragma once
// What a client needs only until its first ReadyForQuery.

#include <memory>
#include <string>

#include "common/auth/client_login.hpp"
#include "common/session/settings.hpp"

namespace pgsled::frontend {

inline pg_error only_for_resharding(const std::string& database) {
  return {"55000", "database \"" + database + "\" is not accepting connections",
          "It is there to be moved to: its hosts have resharding_only = true in [[databases]].",
          {}};
}

struct login_state {
  bool first_byte_seen = false;
  bool in_tls_handshake = false;
  bool direct_tls = false;
  bool authenticating = false;
  bool getting_parameters = false;  // waits for a server to learn what to tell the client
  std::uint32_t protocol = 0;
  bool waits_for_router = false;
  int negotiations = 0;  // SSLRequest and GSSENCRequest so far
  std::unique_ptr<auth::client_login> exchange;
  std::string user, database;
  std::unique_ptr<pg_error> refusal;  // max_client_conn: told after the startup packet
  bool user_known = false, database_known = false;
  session::pairs settings;
};

}  // namespace pgsled::frontend
