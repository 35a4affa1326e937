#include "services/pooler/lanes/lease_server.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/log/log.hpp"

namespace pgsled::pooler {
namespace {

constexpr const char* component = "pooler";
constexpr int packets_a_turn = 64;

}  // namespace

class lease_server::channel final : public net::watcher, public holder_link {
 public:
  channel(lease_server& server, net::unique_fd fd) : server_(server), fd_(std::move(fd)) {
    server_.reactor_.add(fd_.get(), EPOLLIN, this);
    id_ = server_.lender_.attach(*this);
  }
  ~channel() override { close(); }

  bool send(const lease::message& what, int fd) override {
    if (!fd_) return false;
    packet p;
    lease::encode(what, p.bytes);
    if (p.bytes.size() > lease::max_message_bytes) return false;
    if (queue_.empty()) {
      const auto put = net::send_with_fd(fd_.get(), as_bytes(p.bytes), fd);
      if (put >= 0) return true;
      if (put != -EAGAIN) return false;
    }
    if (queue_.size() >= queue_bound) return false;
    if (fd >= 0) {
      // The connection may end before the packet leaves. Without a descriptor the holder gives the
      // lease back.
      p.fd.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    }
    if (queue_.empty()) server_.reactor_.modify(fd_.get(), EPOLLIN | EPOLLOUT, this);
    queue_.push_back(std::move(p));
    return true;
  }

  void end() override {
    close();
    server_.remove(this);
  }

 private:
  struct packet {
    std::string bytes;
    net::unique_fd fd;
  };

  void on_events(std::uint32_t events) override {
    if ((events & EPOLLOUT) != 0 && !flush()) return over();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read();
  }

  bool flush() {
    while (!queue_.empty()) {
      const auto& next = queue_.front();
      const auto put = net::send_with_fd(fd_.get(), as_bytes(next.bytes), next.fd.get());
      if (put == -EAGAIN) return true;
      if (put < 0) return false;
      queue_.pop_front();
    }
    server_.reactor_.modify(fd_.get(), EPOLLIN, this);
    return true;
  }

  void read() {
    for (int i = 0; i < packets_a_turn && fd_; ++i) {
      net::unique_fd unwanted;
      auto& buffer = server_.buffer_;
      const auto got = net::receive_with_fd(fd_.get(), buffer, unwanted);
      if (got == -EAGAIN || got == -EINTR) return;
      if (got <= 0) return over();
      auto what = lease::decode(byte_span(buffer).first(static_cast<std::size_t>(got)));
      if (!what) return server_.lender_.refuse(id_, "unreadable message: " + what.error());
      server_.lender_.receive(id_, std::move(*what));
    }
  }

  void over() {
    close();
    server_.lender_.gone(id_);
    server_.remove(this);
  }

  void close() {
    if (!fd_) return;
    server_.reactor_.remove(fd_.get());
    fd_.reset();
    queue_.clear();
  }

  lease_server& server_;
  net::unique_fd fd_;
  holder_id id_ = 0;
  std::deque<packet> queue_;
};

lease_server::lease_server(net::reactor& r, lender& l, std::string path)
    : reactor_(r),
      lender_(l),
      path_(std::move(path)),
      pause_(r, *this),
      dead_(r),
      buffer_(lease::max_message_bytes + 1) {}

lease_server::~lease_server() {
  if (!listener_) return;
  reactor_.watch(listener_.get(), 0, this);
  ::unlink(path_.c_str());
}

result<bool> lease_server::start() {
  auto fd = net::listen_unix(path_, SOCK_SEQPACKET, 0600);
  if (!fd) return tl::unexpected(fd.error());
  listener_ = std::move(*fd);
  reactor_.add(listener_.get(), EPOLLIN, this);
  return true;
}

void lease_server::on_events(std::uint32_t) {
  for (int i = 0; i < packets_a_turn; ++i) {
    net::unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        log::error(component, "cannot accept a holder: {}", std::strerror(errno));
        pause_.rest(listener_.get(), std::chrono::milliseconds(500));   // holders try again, too
      }
      return;
    }
    if (channels_.size() >= holder_bound) continue;
    auto fresh = std::make_unique<channel>(*this, std::move(fd));
    channels_.emplace(fresh.get(), std::move(fresh));
  }
}

// Perhaps from inside the channel itself: destroyed later.
void lease_server::remove(channel* which) {
  const auto at = channels_.find(which);
  if (at == channels_.end()) return;
  dead_.bury(std::move(at->second));
  channels_.erase(at);
}

}  // namespace pgsled::pooler
