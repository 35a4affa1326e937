#pragma once
// management_connection: one libpq connection for the router's own housekeeping on a shard, never
// for clients' statements. Waits are bounded and end early when `stop` becomes true; only name
// resolution blocks inside libpq. Thread rule: one thread, not the reactor's.

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "services/router/topology.hpp"

namespace pgsled::router {

struct management_tls {          // as in [general] of pgdog.toml
  std::string mode = "prefer", ca_certificate, certificate, private_key;
};

class management_connection {
 public:
  using rows = std::vector<std::vector<std::string>>;   // NULL reads as empty

  // 08006 with the server's or libpq's words, without the password.
  static result<management_connection> open(const shard_address&, const management_tls&,
                                            std::chrono::milliseconds timeout,
                                            const std::atomic<bool>& stop);
  // One or more statements, in one implicit transaction; rows of the last that gave any. Errors
  // keep the server's SQLSTATE.
  result<rows> query(const std::string& sql);
  std::string literal(const std::string& text) const;   // quoted for use in query()

  ~management_connection();
  management_connection(management_connection&&) noexcept;
  management_connection& operator=(management_connection&&) noexcept;

 private:
  struct state;
  explicit management_connection(std::unique_ptr<state>);
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::router
