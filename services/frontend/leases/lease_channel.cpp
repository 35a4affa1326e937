#include "services/frontend/leases/lease_channel.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>

#include "common/app/app.hpp"
#include "common/log/log.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

const std::string& here() {
  static const auto identity = app::host_identity();   // read from files
  return identity;
}

}  // namespace

bool within_reach(const snapshot::pooler_ref& pooler) {
  if (lives_on(pooler)) return true;
  return app::same_machine(pooler.host, here()) && ::access(pooler.lease_path.c_str(), W_OK) == 0;
}

bool lives_on(const snapshot::pooler_ref& pooler) { return pooler.host == here(); }

lease_channel::lease_channel(worker& w, snapshot::pooler_ref pooler)
    : worker_(w), pooler_(std::move(pooler)) {
  connect();
}

lease_channel::~lease_channel() {
  worker_.loop().cancel(timer_);
  if (fd_) worker_.loop().remove(fd_.get());
}

// Started again in its container it has another network, but the socket it had.
bool lease_channel::adopt(const snapshot::pooler_ref& now) {
  if (now.lease_path != pooler_.lease_path) return false;
  if (now.host != pooler_.host && !within_reach(now)) return false;
  pooler_ = now;
  return true;
}

void lease_channel::connect() {
  auto connected = net::connect_unix(pooler_.lease_path, SOCK_SEQPACKET);
  if (!connected) return retry();
  fd_ = std::move(*connected);
  delay_ = std::chrono::milliseconds(50);
  worker_.loop().add(fd_.get(), EPOLLIN, this);
  tell(worker_.greeting(pooler_.instance));  // before anything else may be said on this line
  worker_.pooler_up();
}

void lease_channel::retry() {
  timer_ = worker_.loop().after(delay_, [this] { connect(); });
  delay_ = std::min<std::chrono::milliseconds>(delay_ * 2, std::chrono::seconds(1));
}

void lease_channel::down() {
  if (!fd_) return;
  worker_.loop().remove(fd_.get());
  fd_.reset();
  queue_.clear();
  log::warn("lease", "the line to {} is gone", pooler_.instance);
  worker_.pooler_down(pooler_.instance, lives_on(pooler_));
  retry();
}

void lease_channel::tell(const lease::message& message) {
  if (!fd_) return;
  std::string bytes;
  lease::encode(message, bytes);
  if (queue_.empty()) {
    const ssize_t sent = net::send_with_fd(fd_.get(), as_bytes(bytes), -1);
    if (sent >= 0) return;
    if (sent != -EAGAIN && sent != -EINTR) return;  // the loop sees the hang-up
  }
  queue_.push_back(std::move(bytes));
  if (queue_.size() > max_queued) {
    worker_.schedule([this] { down(); });
    return;
  }
  worker_.loop().modify(fd_.get(), EPOLLIN | EPOLLOUT, this);
}

bool lease_channel::flush() {
  while (!queue_.empty()) {
    const ssize_t sent = net::send_with_fd(fd_.get(), as_bytes(queue_.front()), -1);
    if (sent == -EAGAIN || sent == -EINTR) return true;
    if (sent < 0) return false;
    queue_.pop_front();
  }
  worker_.loop().modify(fd_.get(), EPOLLIN, this);
  return true;
}

bool lease_channel::receive_one() {
  net::unique_fd passed;
  const auto buffer = worker_.message_buffer();
  const ssize_t got = net::receive_with_fd(fd_.get(), buffer, passed);
  if (got == -EAGAIN || got == -EINTR) return false;
  if (got <= 0) {
    down();
    return false;
  }
  auto message = lease::decode(byte_span(buffer.data(), static_cast<std::size_t>(got)));
  if (!message) {
    log::error("lease", "{} sent a message that cannot be read: {}", pooler_.instance,
               message.error());
    down();
    return false;
  }
  worker_.from_pooler(pooler_.instance, std::move(*message),
                      passed ? make_socket_stream(worker_, std::move(passed)) : nullptr);
  return true;
}

void lease_channel::on_events(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !flush()) {
    down();
  } else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    // Bounded, so that a flood of grants does not starve the clients.
    for (int i = 0; i < 64 && receive_one(); ++i) {
    }
  }
  worker_.run_scheduled();
}

}  // namespace pgsled::frontend
