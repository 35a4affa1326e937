#include "services/frontend/leases/transport.hpp"

#include <sys/socket.h>

#include <cerrno>

#include "common/base/bytes.hpp"

namespace pgsled::frontend {

void transport::start_tls(std::shared_ptr<net::tls_context> context) {
  tls_ = std::make_unique<net::tls_stream>(std::move(context), fd_.get());
}

transport::status transport::read(std::span<std::uint8_t> into, std::size_t& n) {
  n = 0;
  if (tls_) {
    switch (tls_->read(into, n)) {
      case net::tls_stream::io::ok:
        return status::ok;
      case net::tls_stream::io::want_read:
      case net::tls_stream::io::want_write:
        return status::again;
      default:
        return status::closed;
    }
  }
  const ssize_t got = ::recv(fd_.get(), into.data(), into.size(), 0);
  if (got > 0) {
    n = static_cast<std::size_t>(got);
    return status::ok;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return status::again;
  return status::closed;
}

ssize_t transport::send_some(std::string_view bytes) {
  if (tls_) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      std::size_t n = 0;
      const auto outcome = tls_->write(as_bytes(bytes.substr(sent)), n);
      if (outcome == net::tls_stream::io::ok) {
        sent += n;
        continue;
      }
      if (outcome == net::tls_stream::io::want_read || outcome == net::tls_stream::io::want_write)
        break;
      return -1;
    }
    return static_cast<ssize_t>(sent);
  }
  const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

bool transport::write(std::string_view bytes) {
  if (bytes.empty()) return true;
  if (pending_) {
    pending_->append(bytes);
    return true;
  }
  const ssize_t sent = send_some(bytes);
  if (sent < 0) return false;
  if (static_cast<std::size_t>(sent) < bytes.size()) {
    pending_ = std::make_unique<std::string>(bytes.substr(static_cast<std::size_t>(sent)));
  }
  return true;
}

bool transport::flush() {
  if (!pending_) return true;
  const ssize_t sent = send_some(*pending_);
  if (sent < 0) return false;
  if (static_cast<std::size_t>(sent) == pending_->size()) {
    pending_.reset();
  } else {
    pending_->erase(0, static_cast<std::size_t>(sent));
  }
  return true;
}

}  // namespace pgsled::frontend
