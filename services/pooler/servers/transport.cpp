#include "services/pooler/servers/transport.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/wire/frame.hpp"

namespace pgsled::pooler {

using io = transport::io;

io transport::read(std::span<std::uint8_t> into, std::size_t& n) {
  if (tls) return tls->read(into, n);
  n = 0;
  for (;;) {
    const auto got = ::recv(fd.get(), into.data(), into.size(), 0);
    if (got > 0) return n = static_cast<std::size_t>(got), io::ok;
    if (got == 0) return io::closed;
    if (errno == EINTR) continue;
    last_errno = errno;
    return last_errno == EAGAIN ? io::want_read : io::failed;
  }
}

io transport::write(std::span<const std::uint8_t> from, std::size_t& n) {
  if (tls) return tls->write(from, n);
  n = 0;
  for (;;) {
    const auto put = ::send(fd.get(), from.data(), from.size(), MSG_NOSIGNAL);
    if (put >= 0) return n = static_cast<std::size_t>(put), io::ok;
    if (errno == EINTR) continue;
    last_errno = errno;
    return last_errno == EAGAIN ? io::want_write : io::failed;
  }
}

std::string transport::error() const { return tls ? tls->error() : std::strerror(last_errno); }

bool transport::ended() const {
  std::uint8_t byte;
  const auto got = ::recv(fd.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

std::string dial_target::where() const { return fmt::format("{}:{}", host, port); }

dial::dial(net::reactor& r, dial_target target, finished done)
    : reactor_(r), target_(std::move(target)), done_(std::move(done)) {}

dial::~dial() { watch(0); }

void dial::start(resolver& names) {
  names.resolve(target_.host, target_.port,
                [this, alive = std::weak_ptr<int>(alive_)](result<std::vector<address>> found) {
                  if (alive.expired()) return;
                  if (!found) return finish(tl::unexpected(found.error()));
                  addresses_ = std::move(*found);
                  next_address();
                });
}

void dial::start(const address& one) {
  addresses_ = {one};
  next_address();
}

bool dial::wants_tls() const {
  return target_.tls_verify != "disabled" && !plain_only_ &&
         transport_.peer.storage.ss_family != AF_UNIX;
}

void dial::next_address() {
  watch(0);
  transport_ = {};
  if (next_ >= addresses_.size()) {
    return finish(failure(
        "08001", fmt::format("could not connect to server {}: {}", target_.where(), why_)));
  }
  transport_.peer = addresses_[next_++];
  auto fd = net::connect_tcp(reinterpret_cast<const sockaddr*>(&transport_.peer.storage),
                             transport_.peer.length);
  if (!fd) return failed_here(fd.error().message);
  transport_.fd = std::move(*fd);
  net::apply(transport_.fd.get(), target_.tcp);
  stage_ = stage::connecting;
  watch(EPOLLOUT);
}

void dial::failed_here(const std::string& why) {
  why_ = why;
  const bool tls_failed = stage_ == stage::handshaking || stage_ == stage::answering;
  if (tls_failed && target_.tls_verify == "prefer" && !plain_only_) {
    plain_only_ = true;
    --next_;  // the same address again, without TLS
  } else {
    plain_only_ = false;
  }
  // Not from here: an endless list of addresses that fail at once must not nest.
  watch(0);
  reactor_.defer([this, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) next_address();
  });
}

void dial::on_events(std::uint32_t) {
  switch (stage_) {
    case stage::connecting: {
      const int error = net::connect_error(transport_.fd.get());
      if (error != 0) return failed_here(std::strerror(error));
      return connected();
    }
    case stage::asking: return ask_tls();
    case stage::answering: return read_answer();
    case stage::handshaking: return handshake();
    case stage::waiting:
    case stage::over: return;
  }
}

void dial::connected() {
  if (!wants_tls()) return finish(std::move(transport_));
  stage_ = stage::asking;
  ask_tls();
}

void dial::ask_tls() {
  std::array<std::uint8_t, 8> request;
  store_be<std::uint32_t>(request.data(), 8);
  store_be<std::uint32_t>(request.data() + 4, wire::ssl_request_code);
  std::size_t n = 0;
  const auto how = transport_.write(request, n);
  if (how == io::want_write) return watch(EPOLLOUT);
  // Eight bytes into the empty buffer of a new socket are taken whole.
  if (how != io::ok || n != request.size()) return failed_here("could not ask for TLS");
  stage_ = stage::answering;
  watch(EPOLLIN);
}

void dial::read_answer() {
  // One byte and no more: what a third party may have sent before the handshake must not end up
  // in a buffer that is later taken for the server's (CVE-2021-23222).
  std::uint8_t answer = 0;
  std::size_t n = 0;
  const auto how = transport_.read({&answer, 1}, n);
  if (how == io::want_read) return watch(EPOLLIN);
  if (how != io::ok) return failed_here("server closed the connection when asked for TLS");
  if (answer == 'N') {
    if (target_.tls_verify == "prefer") return finish(std::move(transport_));
    stage_ = stage::over;
    return failed_here("server does not support TLS, but tls_verify requires it");
  }
  if (answer != 'S') return failed_here("unexpected answer when asked for TLS");
  stage_ = stage::handshaking;
  transport_.tls.emplace(target_.tls, transport_.fd.get(), target_.host);
  handshake();
}

void dial::handshake() {
  switch (transport_.tls->handshake()) {
    case io::ok: return finish(std::move(transport_));
    case io::want_read: return watch(EPOLLIN);
    case io::want_write: return watch(EPOLLOUT);
    case io::closed: return failed_here("server closed the connection during the TLS handshake");
    case io::failed: return failed_here("TLS: " + transport_.tls->error());
  }
}

void dial::finish(result<transport> how) {
  stage_ = stage::over;
  // The descriptor may already have moved into the result.
  reactor_.watch(how ? how->fd.get() : transport_.fd.get(), 0, this);
  const auto done = std::exchange(done_, nullptr);
  if (done) done(std::move(how));
}

}  // namespace pgsled::pooler
