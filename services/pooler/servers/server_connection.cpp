#include "services/pooler/servers/server_connection.hpp"

#include <strings.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "common/wire/messages.hpp"

namespace pgsled::pooler {
namespace {

using io = transport::io;

// Nothing that the pooler itself asks for, or that a server sends unasked, is longer.
constexpr std::uint32_t max_body = 256 * 1024;

void set_pair(lease::text_pairs& pairs, std::string_view name, std::string_view value) {
  for (auto& [key, old] : pairs) {
    if (key == name) {
      old = value;
      return;
    }
  }
  if (pairs.size() < 256) pairs.emplace_back(name, value);
}

}  // namespace

server_connection::server_connection(net::reactor& r, opened from, callbacks e)
    : reactor_(r),
      transport_(std::move(from.transport)),
      events_(std::move(e)),
      pid_(from.pid),
      secret_(std::move(from.secret)),
      parameters_(std::move(from.parameters)),
      in_(std::move(from.unread)) {}

server_connection::~server_connection() {
  watch(0);
  reactor_.cancel(timer_);
}

void server_connection::park() {
  watch(EPOLLIN);
  // Readiness does not announce what was decrypted or buffered before.
  if (!in_.empty() || transport_.pending()) {
    reactor_.defer([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired() && watched()) read_all();
    });
  }
}

void server_connection::unpark() {
  watch(0);
  // A message of which only a part has come goes with the lease.
  state_.unread = std::exchange(in_, {});
}

void server_connection::run(std::string_view sql, net::duration timeout) {
  running_ = true;
  error_seen_ = false;
  discarding_ = sql == "DISCARD ALL";
  wire::write_query(out_, sql);
  if (timeout.count() > 0) {
    timer_ = reactor_.after(timeout, [this] { fail("no answer in time"); });
  }
  watch(EPOLLIN);
  write_some();
}

void server_connection::terminate() {
  watch(0);
  if (out_.empty()) {
    wire::write_terminate(out_);
    std::size_t n = 0;
    static_cast<void>(transport_.write(as_bytes(out_), n));
    if (transport_.tls) transport_.tls->shutdown();
  }
  transport_.tls.reset();
  if (transport_.fd) ::shutdown(transport_.fd.get(), SHUT_WR);
}

void server_connection::shut_down() {
  watch(0);
  if (transport_.fd) ::shutdown(transport_.fd.get(), SHUT_RDWR);
}

bool server_connection::server_still_there() const {
  // A server that cannot get rid of a result does not hear of a cancel: what it has sent is thrown
  // away, and what it sends next meets a reset.
  while (transport_.fd &&
         ::recv(transport_.fd.get(), nullptr, 1 << 20, MSG_TRUNC | MSG_DONTWAIT) > 0) {
  }
  tcp_info info{};
  socklen_t size = sizeof info;
  if (!transport_.fd ||
      ::getsockopt(transport_.fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return false;
  }
  return info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2;
}

void server_connection::on_events(std::uint32_t) {
  if (!out_.empty()) write_some();
  if (watched()) read_all();
}

void server_connection::write_some() {
  while (!out_.empty()) {
    std::size_t n = 0;
    const auto how = transport_.write(as_bytes(out_), n);
    out_.erase(0, n);
    if (how == io::want_write || how == io::want_read) return watch(EPOLLIN | EPOLLOUT);
    if (how != io::ok) return fail(transport_.error());
  }
  watch(EPOLLIN);
}

void server_connection::read_all() {
  std::array<std::uint8_t, 16 * 1024> buffer;
  while (watched()) {
    wire::frame frame;
    const auto bytes = as_bytes(in_);
    const auto framed = wire::peek(bytes, frame);
    const bool complete = framed == wire::frame_state::complete;
    if (framed == wire::frame_state::bad_length || (complete && frame.length > max_body)) {
      return fail("message of impossible length");
    }
    if (complete && bytes.size() >= frame.total()) {
      const auto body = in_.substr(wire::header_size, frame.length);
      in_.erase(0, frame.total());
      if (!take(frame.type, as_bytes(body))) return;
      continue;
    }
    std::size_t n = 0;
    const auto how = transport_.read(buffer, n);
    if (how == io::want_read) {
      // What TLS wanted to write for this is written.
      if (transport_.tls && out_.empty()) watch(EPOLLIN);
      return;
    }
    if (how == io::want_write) return watch(EPOLLIN | EPOLLOUT);
    if (how == io::closed) return fail("closed by the server");
    if (how == io::failed) return fail(transport_.error());
    in_.append(reinterpret_cast<const char*>(buffer.data()), n);
  }
}

bool server_connection::take(char type, byte_span body) {
  using namespace wire;
  switch (type) {
    case backend::parameter_status:
      if (const auto pair = read_parameter_status(body)) {
        set_pair(parameters_, pair->first, pair->second);
      }
      return true;
    case backend::notice_response:
    case backend::notification_response: return true;
    case backend::error_response: {
      const auto error = read_error(body);
      if (running_ && error && error->severity != "FATAL" && error->severity != "PANIC") {
        error_seen_ = true;
        return true;
      }
      fail(error ? std::string(error->message) : "unreadable error");
      return false;
    }
    case backend::row_description:
    case backend::data_row:
    case backend::command_complete:
    case backend::empty_query_response:
      if (running_) return true;
      break;
    case backend::ready_for_query:
      if (!running_ || body.size() != 1) break;
      end_run(!error_seen_ && body[0] == 'I');
      return true;
    default: break;
  }
  fail("message out of order");
  return false;
}

void server_connection::fail(const std::string& why) {
  watch(0);
  if (running_) return end_run(false);
  if (events_.lost) events_.lost(why);
}

void server_connection::end_run(bool good) {
  running_ = false;
  reactor_.cancel(timer_);
  if (good && discarding_) state_ = {};
  if (events_.ran) events_.ran(good);
}

}  // namespace pgsled::pooler
