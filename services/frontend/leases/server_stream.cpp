#include "services/frontend/leases/server_stream.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>

#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

class socket_stream final : public server_stream, public net::watcher {
 public:
  socket_stream(worker& w, net::unique_fd fd) : worker_(w), fd_(std::move(fd)) {}
  ~socket_stream() override {
    if (user_ != nullptr) worker_.loop().remove(fd_.get());
  }

  void start(server_stream_user& user) override {
    user_ = &user;
    watched_ = EPOLLIN;
    worker_.loop().add(fd_.get(), watched_, this);
  }

  std::ptrdiff_t send(std::string_view bytes) override {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    // After an error the socket is readable (end of file or the error): the loop tells the user.
    return sent >= 0 ? sent : errno == EAGAIN || errno == EINTR ? 0 : -1;
  }

  void interest(bool bytes, bool writable) override {
    const std::uint32_t wanted = (bytes ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);
    if (wanted == watched_) return;
    watched_ = wanted;
    worker_.loop().modify(fd_.get(), wanted, this);
  }

  void cut() override { ::shutdown(fd_.get(), SHUT_RDWR); }

  // One end of a pair: the other one has no name. A server's socket always has one.
  bool pumped() const override {
    sockaddr_un peer{};
    socklen_t size = sizeof peer;
    return ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
           peer.sun_family == AF_UNIX && size <= offsetof(sockaddr_un, sun_path);
  }

 private:
  void on_events(std::uint32_t events) override {
    auto& owner = worker_;  // outlives this object, which may be deleted below
    if ((events & EPOLLOUT) != 0) user_->stream_writable();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read();
    owner.run_scheduled();
  }

  void read() {
    const auto buffer = worker_.read_buffer();
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) {
      user_->stream_bytes({buffer.data(), static_cast<std::size_t>(got)});
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      user_->stream_ended();
    }
  }

  worker& worker_;
  net::unique_fd fd_;
  server_stream_user* user_ = nullptr;
  std::uint32_t watched_ = 0;
};

}  // namespace

std::unique_ptr<server_stream> make_socket_stream(worker& w, net::unique_fd fd) {
  return std::make_unique<socket_stream>(w, std::move(fd));
}

}  // namespace pgsled::frontend
