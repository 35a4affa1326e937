#include "services/pooler/lanes/pump.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace pgsled::pooler {
namespace {

using io = transport::io;

// A read shorter than this is most likely the end of an answer: it is passed on at once. Longer
// ones are collected, so that a large result goes in few writes.
constexpr std::size_t collect_from = 4 * 1024;
constexpr int most_rounds = 8;  // before other connections get their turn

int unread_in(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : 1;
}

}  // namespace

std::span<std::uint8_t> pump::pipe::room() {
  if (begin > 0 && end == capacity) {
    std::memmove(bytes.get(), bytes.get() + begin, end - begin);
    end -= begin;
    begin = 0;
  }
  return {bytes.get() + end, capacity - end};
}

void pump::pipe::taken(std::size_t n) {
  begin += n;
  if (begin == end) begin = end = 0;
}

pump::pump(net::reactor& r) : reactor_(r) {
  std::tie(theirs_, ours_) = net::stream_pair();
  down_.bytes = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
  up_.bytes = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
  server_side_.owner = holder_side_.owner = this;
  holder_side_.fd = ours_.get();
}

pump::~pump() { stop(); }

void pump::start(transport& server, lease::generation) {
  server_ = &server;
  server_side_.fd = server.fd.get();
  read_wants_write_ = write_wants_read_ = false;
  // Bytes may already be decrypted, which readiness does not announce.
  if (server.pending()) move_down();
  set_interest();
}

bool pump::quiet() const {
  return down_.empty() && up_.empty() && !down_.eof && !up_.eof && unread_in(theirs_.get()) == 0 &&
         unread_in(ours_.get()) == 0;
}

void pump::stop() {
  reactor_.watch(server_side_.fd, 0, &server_side_);
  reactor_.watch(holder_side_.fd, 0, &holder_side_);
  server_ = nullptr;
}

void pump::ready(side& which, std::uint32_t events) {
  const bool crossed = read_wants_write_ || write_wants_read_;
  const bool from_server = &which == &server_side_;
  const std::uint32_t readable = EPOLLIN | EPOLLHUP | EPOLLERR;
  if (crossed || (from_server ? (events & readable) != 0 : (events & EPOLLOUT) != 0)) move_down();
  if (crossed || (from_server ? (events & EPOLLOUT) != 0 : (events & readable) != 0)) move_up();
  set_interest();
}

void pump::move_down() {
  bool more = true;
  for (int round = 0; more && round < most_rounds; ++round) {
    more = fill_down();
    if (!drain_down()) more = false;
  }
  if (more && server_->pending()) later();
  if (down_.eof && down_.empty() && !std::exchange(down_.eof_told, true)) {
    ::shutdown(ours_.get(), SHUT_WR);
  }
}

// What is decrypted already is announced by nothing.
void pump::later() {
  reactor_.defer([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired() || server_ == nullptr) return;
    move_down();
    set_interest();
  });
}

// True when there may be more to read at once.
bool pump::fill_down() {
  read_wants_write_ = false;
  while (!down_.eof) {
    const auto room = down_.room();
    if (room.empty()) return true;
    std::size_t n = 0;
    const auto how = server_->read(room, n);
    if (how == io::ok) {
      down_.end += n;
      if (n < collect_from && !server_->pending()) return false;
      continue;
    }
    read_wants_write_ = how == io::want_write;
    down_.eof = how == io::closed || how == io::failed;
    return false;
  }
  return false;
}

// True when everything has been passed on.
bool pump::drain_down() {
  while (!down_.empty()) {
    const auto content = down_.content();
    const auto put = ::send(ours_.get(), content.data(), content.size(), MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return false;
      down_.eof = true;  // nobody reads any more
      down_.taken(content.size());
      return true;
    }
    down_.taken(static_cast<std::size_t>(put));
  }
  return true;
}

void pump::move_up() {
  for (int round = 0; round < most_rounds; ++round) {
    bool more = false;
    if (const auto room = up_.room(); !up_.eof && !room.empty()) {
      const auto got = ::recv(ours_.get(), room.data(), room.size(), 0);
      if (got > 0) up_.end += static_cast<std::size_t>(got);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) up_.eof = true;
      more = got == static_cast<ssize_t>(room.size());
    }
    if (!drain_up() || !more) break;
  }
  if (up_.eof && up_.empty() && !std::exchange(up_.eof_told, true)) {
    if (server_->tls) server_->tls->shutdown();
    ::shutdown(server_->fd.get(), SHUT_WR);
  }
}

bool pump::drain_up() {
  write_wants_read_ = false;
  while (!up_.empty()) {
    std::size_t n = 0;
    const auto how = server_->write(up_.content(), n);
    if (how == io::ok) {
      up_.taken(n);
      continue;
    }
    write_wants_read_ = how == io::want_read;
    if (how == io::want_read || how == io::want_write) return false;
    up_.eof = up_.eof_told = true;  // the server reads no more; what it still says is passed on
    up_.taken(up_.content().size());
  }
  return true;
}

void pump::set_interest() {
  if (server_ == nullptr) return;
  const bool down_room = down_.content().size() < capacity;
  const bool up_room = up_.content().size() < capacity;
  std::uint32_t server = 0, holder = 0;
  if (!down_.eof && down_room) server |= EPOLLIN;
  if (!up_.empty() || read_wants_write_) server |= EPOLLOUT;
  if (write_wants_read_) server |= EPOLLIN;
  if (!up_.eof && up_room) holder |= EPOLLIN;
  if (!down_.empty()) holder |= EPOLLOUT;
  // Not watched at all rather than for nothing: a hang-up would be reported for ever.
  reactor_.watch(server_side_.fd, server, &server_side_);
  reactor_.watch(holder_side_.fd, holder, &holder_side_);
}

}  // namespace pgsled::pooler
