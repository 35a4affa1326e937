#include "services/replicator/control/server.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "common/log/log.hpp"

namespace pgsled::replicator {
namespace {

constexpr std::size_t enough_unsent = 256u << 10;
constexpr std::chrono::milliseconds accept_pause{200}, between_ticks{100};

}  // namespace

class control_server::connection final : public net::watcher {
 public:
  connection(control_server& owner, net::unique_fd fd)
      : owner_(owner), fd_(std::move(fd)), protocol_(owner.status_, owner.reshard_) {
    owner_.loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~connection() { owner_.loop_.remove(fd_.get()); }
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  void on_events(std::uint32_t events) override {
    bool alive = true;
    if ((events & EPOLLOUT) != 0) alive = flush();
    if (alive && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) alive = receive() && flush();
    if (!alive) {
      owner_.connections_.erase(fd_.get());  // destroys this
      return;
    }
    listen();
  }

  // What the one that is watched has to say; who does not read it is told no more.
  void tick() {
    if (!(protocol_.watching() || asked_) || out_.size() >= enough_unsent) return;
    protocol_.tick(out_);
    if (flush()) listen();   // else the next event says so
  }

 private:
  void listen() {
    asked_ = protocol_.waiting();
    const bool reads = out_.size() < enough_unsent && !asked_;
    owner_.loop_.modify(fd_.get(), (reads ? std::uint32_t{EPOLLIN} : 0u) |
                                       (out_.empty() ? 0u : std::uint32_t{EPOLLOUT}), this);
  }
  bool receive() {
    std::array<std::uint8_t, 16 * 1024> buffer;
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    protocol_.feed(std::span(buffer).first(static_cast<std::size_t>(n)), out_);
    return true;
  }

  bool flush() {
    while (!out_.empty()) {
      const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      out_.erase(0, static_cast<std::size_t>(n));
    }
    return true;
  }

  control_server& owner_;
  net::unique_fd fd_;
  control_protocol protocol_;
  std::string out_;
  bool asked_ = false;   // an answer is waited for
};

control_server::control_server(net::reactor& loop, std::string path,
                               std::function<status_report()> status, reshard_hooks reshard)
    : loop_(loop),
      path_(std::move(path)),
      status_(std::move(status)),
      reshard_(std::move(reshard)) {}

control_server::~control_server() {
  loop_.cancel(ticking_);
  connections_.clear();
  if (!listener_) return;
  loop_.remove(listener_.get());
  ::unlink(path_.c_str());
}

result<bool> control_server::start() {
  auto listening = net::listen_unix(path_, SOCK_STREAM, 0600);
  if (!listening) return tl::unexpected(std::move(listening.error()));
  listener_ = std::move(*listening);
  loop_.add(listener_.get(), EPOLLIN, this);
  if (reshard_.list) ticking_ = loop_.after(between_ticks, [this] { tick(); });
  return true;
}

void control_server::tick() {
  for (const auto& [number, one] : connections_) one->tick();
  ticking_ = loop_.after(between_ticks, [this] { tick(); });
}

void control_server::on_events(std::uint32_t) {
  for (;;) {
    net::unique_fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      admit(std::move(fd));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE) {  // level-triggered: without a pause this would spin
      log::warn("control", "no descriptor is left for a control connection");
      loop_.modify(listener_.get(), 0, this);
      loop_.after(accept_pause, [this] { loop_.modify(listener_.get(), EPOLLIN, this); });
    }
    return;
  }
}

void control_server::admit(net::unique_fd fd) {
  if (connections_.size() >= max_connections) {
    const auto line = control_refusal("53300", "too many control connections");
    [[maybe_unused]] const auto n =
        ::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return;
  }
  const int number = fd.get();
  connections_.emplace(number, std::make_unique<connection>(*this, std::move(fd)));
}

}  // namespace pgsled::replicator
