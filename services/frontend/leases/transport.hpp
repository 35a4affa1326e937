#pragma once
// transport: the bytes to and from one socket, plain or TLS, with what could not be sent yet.
// Owns the descriptor. Nothing is buffered while the peer keeps up. Thread rule: one owner.

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/net/socket.hpp"
#include "common/net/tls.hpp"

namespace pgsled::frontend {

class transport {
 public:
  explicit transport(net::unique_fd fd) : fd_(std::move(fd)) {}

  enum class status { ok, again, closed };
  int fd() const { return fd_.get(); }
  void start_tls(std::shared_ptr<net::tls_context> context);
  net::tls_stream* tls() const { return tls_.get(); }

  status read(std::span<std::uint8_t> into, std::size_t& n);
  // False when the connection is dead. What does not go out now is kept; blocked() is then true
  // and the caller stops producing.
  bool write(std::string_view bytes);
  bool flush();
  bool blocked() const { return pending_ != nullptr; }
  std::size_t held() const { return pending_ ? pending_->size() : 0; }
  // TLS has decrypted bytes that readiness of the descriptor will not announce.
  bool has_buffered_input() const { return tls_ && tls_->pending(); }

 private:
  // Bytes sent, or -1 when the connection is dead.
  ssize_t send_some(std::string_view bytes);

  net::unique_fd fd_;
  std::unique_ptr<net::tls_stream> tls_;
  std::unique_ptr<std::string> pending_;
};

}  // namespace pgsled::frontend
