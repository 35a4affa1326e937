#pragma once
// connection: one libpq connection for the suite's own work on a server, never for clients'
// statements. Waits are bounded and end early when `stop` becomes true; only name resolution
// blocks inside libpq. After an error with 08006 the connection is of no use any more. Thread
// rule: one thread at a time, not a reactor's.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"

namespace pgsled::management {

struct address {
  std::string host;
  std::uint16_t port = 5432;
  std::string database, user, password;
  bool operator==(const address&) const = default;
};

struct tls {          // as in [general] of pgdog.toml
  std::string mode = "prefer", ca_certificate, certificate, private_key;
};

struct manner {       // of a connection
  std::string application = "pgsled router";
  // For the server, as -c name=value; statements are limited by it, not only by query_timeout.
  std::string options = "-c statement_timeout=10s";
  std::chrono::milliseconds query_timeout{10'000};   // of each wait for the server
  bool replication = false;                          // a walsender of this database
};

class connection {
 public:
  using rows = std::vector<std::vector<std::string>>;   // NULL reads as empty

  // 08006 with the server's or libpq's words, without the password.
  static result<connection> open(const address&, const tls&, std::chrono::milliseconds timeout,
                                 const std::atomic<bool>& stop, const manner& = {});
  // One or more statements, in one implicit transaction; rows of the last that gave any. Errors
  // keep the server's SQLSTATE.
  result<rows> query(const std::string& sql);
  // As query(), of one statement that is asked again and again on this connection: it is planned
  // once. A constant of the program, since the server keeps its plan. `values`: of $1, $2, …
  result<rows> again(const char* sql, const std::vector<std::string>& values = {});
  // As query(); how many rows each statement has touched (0 for those that touch none).
  result<std::vector<std::int64_t>> run(const std::string& sql);
  // As query(): the last command tag, and the first column of the first row, if any.
  struct told {
    std::string tag, value;
  };
  result<told> answer(const std::string& sql);
  std::string literal(const std::string& text) const;   // quoted for use in query()

  // COPY … TO STDOUT: how many rows. `sink` gets them in pieces of about `piece` bytes, which
  // consist of whole messages as the server sent them (a row each; in binary format the header
  // comes with the first, the trailer as one more). Its error ends the copy (by a cancel) and is
  // given back. Other statements may stand before the COPY, here and below.
  using rows_sink = std::function<result<bool>(std::string_view piece, std::int64_t messages)>;
  result<std::int64_t> copy_out(const std::string& sql, std::size_t piece, const rows_sink& sink);
  // COPY … FROM STDIN: begin, put as often as wanted, end (how many rows), or give up: the
  // statement then fails, and with it its transaction.
  result<bool> begin_copy_in(const std::string& sql);
  result<bool> put(std::string_view bytes);
  result<std::int64_t> end_copy_in();
  void give_up_copy_in(const char* why);

  // START_REPLICATION: then receive() gives one CopyData message after the other, none when nothing
  // has come within `wait`.
  result<bool> begin_stream(const std::string& command);
  result<std::optional<std::string>> receive(std::chrono::milliseconds wait);
  result<bool> send(std::string_view message);

  void wait_at_most(std::chrono::milliseconds query_timeout);   // from now on
  int server_version() const;                                   // as 150018

  // Ends what the server does for this connection, which is of no use any more.
  void cancel() const;

  ~connection();
  connection(connection&&) noexcept;
  connection& operator=(connection&&) noexcept;

 private:
  struct state;
  explicit connection(std::unique_ptr<state>);
  std::unique_ptr<state> state_;
};


}  // namespace pgsled::management
