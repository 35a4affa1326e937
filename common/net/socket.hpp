#pragma once
// unique_fd and the socket calls the services need. All sockets made here are non-blocking and
// close-on-exec. Errors come back as result with SQLSTATE 08006/08001 and errno's text.

#include <sys/socket.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "common/base/result.hpp"

namespace pgsled::net {

class unique_fd {
 public:
  unique_fd() = default;
  explicit unique_fd(int fd) : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~unique_fd() { reset(); }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct tcp_options {  // [tcp] of pgdog.toml; zero means the kernel's default
  bool keepalive = true;
  int keepalive_idle_s = 0;
  int keepalive_interval_s = 0;
  int keepalive_retries = 0;
  int user_timeout_ms = 0;
};

// `host` is an address or a name of this machine, or empty / "0.0.0.0" / "::"; of several addresses
// the first that can be had. Port 0 lets the kernel choose. Looks names up, which may block.
result<unique_fd> listen_tcp(const std::string& host, std::uint16_t port, bool reuse_port,
                             int backlog);
// Removes a stale socket file first; the mode is set before anyone can connect.
result<unique_fd> listen_unix(const std::string& path, int type, unsigned mode);
// Starts a non-blocking connect; EINPROGRESS is success.
result<unique_fd> connect_tcp(const sockaddr* address, socklen_t length);
result<unique_fd> connect_unix(const std::string& path, int type);
// The pending error of a finished connect; 0 when connected.
int connect_error(int fd);
std::uint16_t local_port(int fd);
void apply(int fd, const tcp_options& options);  // also TCP_NODELAY; ignores non-TCP sockets
std::pair<unique_fd, unique_fd> stream_pair();

// One SOCK_SEQPACKET message with at most one descriptor. Return values are those of sendmsg and
// recvmsg (negative: errno). receive_with_fd sets `fd` only when one came.
ssize_t send_with_fd(int socket, std::span<const std::uint8_t> message, int fd_or_minus_one);
ssize_t receive_with_fd(int socket, std::span<std::uint8_t> buffer, unique_fd& fd);

}  // namespace pgsled::net
