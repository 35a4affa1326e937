#include "services/pooler/servers/server_connect.hpp"

#include <sys/epoll.h>

#include <array>

#include "common/wire/messages.hpp"

namespace pgsled::pooler {
namespace {

using io = transport::io;

// Tells whose error it is; the server's own text stays as it is.
pg_error named(pg_error error, const dial_target& target, const auth::server_identity& who) {
  error.message = fmt::format("server {}, database \"{}\", user \"{}\": {}", target.where(),
                              who.database, who.user, error.message);
  return error;
}

}  // namespace

server_opening::server_opening(net::reactor& r, dial_target target, auth::server_identity identity,
                               net::duration timeout, finished done)
    : reactor_(r),
      target_(std::move(target)),
      identity_(std::move(identity)),
      timeout_(timeout),
      done_(std::move(done)),
      dial_(r, target_, [this](result<pooler::transport> how) { dialled(std::move(how)); }) {}

server_opening::~server_opening() {
  watch(0);
  reactor_.cancel(timer_);
}

void server_opening::start(resolver& names) {
  if (timeout_.count() > 0) {
    timer_ = reactor_.after(timeout_, [this] {
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout_).count();
      finish(failure("08001", fmt::format("could not connect to server {} within {} ms",
                                          target_.where(), ms)));
    });
  }
  dial_.start(names);
}

void server_opening::dialled(result<pooler::transport> how) {
  if (!done_) return;  // the time was over just before
  if (!how) return finish(tl::unexpected(how.error()));
  result_.transport = std::move(*how);
  auto& tls = result_.transport.tls;
  login_.emplace(identity_, tls ? tls->end_point_hash() : std::string());
  login_->start(out_);
  watch(EPOLLIN);
  write_some();
}

void server_opening::on_events(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !out_.empty()) {
    write_some();
    if (!done_) return;
  }
  read_some();
}

void server_opening::write_some() {
  while (!out_.empty()) {
    std::size_t n = 0;
    const auto how = result_.transport.write(as_bytes(out_), n);
    out_.erase(0, n);
    if (how == io::want_write || how == io::want_read) return watch(EPOLLIN | EPOLLOUT);
    if (how != io::ok) {
      return finish(failure("08006",
                            fmt::format("lost the connection to server {} during login: {}",
                                        target_.where(), result_.transport.error())));
    }
  }
  watch(EPOLLIN);
}

void server_opening::read_some() {
  std::array<std::uint8_t, 16 * 1024> buffer;
  for (;;) {
    std::size_t n = 0;
    const auto how = result_.transport.read(buffer, n);
    if (how == io::want_read) {
      // What TLS wanted to write for this is written.
      if (result_.transport.tls && out_.empty()) watch(EPOLLIN);
      return;
    }
    if (how == io::want_write) return watch(EPOLLIN | EPOLLOUT);
    if (how != io::ok) {
      return finish(failure("08006", fmt::format("server {} closed the connection during login",
                                                 target_.where())));
    }
    in_.append(reinterpret_cast<const char*>(buffer.data()), n);
    std::size_t consumed = 0;
    pg_error error;
    const auto outcome = login_->receive(as_bytes(in_), consumed, out_, error);
    in_.erase(0, consumed);
    if (outcome == auth::server_login::outcome::failed) {
      return finish(tl::unexpected(named(std::move(error), target_, identity_)));
    }
    if (outcome == auth::server_login::outcome::ready) {
      result_.pid = login_->backend_pid();
      result_.secret = login_->secret();
      result_.parameters = login_->parameters();
      result_.unread = std::move(in_);
      watch(0);
      return finish(std::move(result_));
    }
    if (!out_.empty()) {
      write_some();
      if (!done_) return;
    }
  }
}

void server_opening::finish(result<opened> how) {
  if (!how) watch(0);
  reactor_.cancel(timer_);
  const auto done = std::exchange(done_, nullptr);
  if (done) done(std::move(how));
}

server_cancel::server_cancel(net::reactor& r, dial_target target, std::uint32_t pid,
                             const std::string& secret, net::duration limit, finished done)
    : reactor_(r),
      limit_(limit),
      done_(std::move(done)),
      dial_(r, std::move(target), [this](result<pooler::transport> how) {
        if (!done_ || !how) return finish(true);
        transport_ = std::move(*how);
        advance();
      }) {
  wire::write_cancel(out_, pid, secret);
}

server_cancel::~server_cancel() {
  watch(0);
  reactor_.cancel(timer_);
}

void server_cancel::start(const address& where) {
  timer_ = reactor_.after(limit_, [this] { finish(!sent_); });
  dial_.start(where);
}

void server_cancel::on_events(std::uint32_t) { advance(); }

void server_cancel::advance() {
  while (!out_.empty()) {
    std::size_t n = 0;
    const auto how = transport_.write(as_bytes(out_), n);
    sent_ = true;   // some of it
    out_.erase(0, n);
    if (how == io::want_write || how == io::want_read) return watch(EPOLLIN | EPOLLOUT);
    if (how != io::ok) return finish(true);
  }
  watch(EPOLLIN);
  std::array<std::uint8_t, 256> buffer;
  for (;;) {
    std::size_t n = 0;
    const auto how = transport_.read(buffer, n);
    if (how == io::want_read || how == io::want_write) return;
    if (how != io::ok) return finish(true);
  }
}

void server_cancel::finish(bool sure) {
  watch(0);
  reactor_.cancel(timer_);
  const auto done = std::exchange(done_, nullptr);
  if (done) done(sure);
}

}  // namespace pgsled::pooler
