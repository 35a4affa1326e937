#include "common/net/socket.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fmt/format.h>

namespace pgsled::net {
namespace {

constexpr int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;

tl::unexpected<pg_error> system_failure(const char* sqlstate, const std::string& what, int error) {
  return failure(sqlstate, fmt::format("{}: {}", what, std::strerror(error)));
}

void set_option(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof value);
}

result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return failure("08001",
                   fmt::format("socket path \"{}\" must have 1 to {} bytes", path,
                               sizeof address.sun_path - 1),
                   "Choose a shorter directory.");
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// A socket file is stale when nobody listens behind it.
result<bool> remove_stale(const std::string& path, int type, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return true;
  if (!S_ISSOCK(status.st_mode))
    return failure("08006", fmt::format("\"{}\" exists and is not a socket", path));
  const unique_fd probe(::socket(AF_UNIX, type | flags, 0));
  if (probe && (::connect(probe.get(), generic(address), sizeof address) == 0 || errno == EAGAIN))
    return failure("55006", fmt::format("somebody already listens on \"{}\"", path),
                   "Is another process with the same instance name running?");
  ::unlink(path.c_str());
  return true;
}

}  // namespace

void unique_fd::reset(int fd) {
  const int old = std::exchange(fd_, fd);
  if (old >= 0 && old != fd) ::close(old);
}

result<unique_fd> listen_tcp(const std::string& host, std::uint16_t port, bool reuse_port,
                             int backlog) {
  const std::string where = fmt::format("could not listen on {}:{}", host, port);
  addrinfo wanted{}, *all = nullptr;
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const int failed = ::getaddrinfo(host.empty() ? "0.0.0.0" : host.c_str(),
                                   std::to_string(port).c_str(), &wanted, &all);
  if (failed != 0) {
    return failure("08006", fmt::format("{}: {}", where, ::gai_strerror(failed)),
                   "Write an address of this machine, or 0.0.0.0 for all.");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(all, ::freeaddrinfo);
  int error = 0;
  for (const auto* at = all; at != nullptr; at = at->ai_next) {
    unique_fd fd(::socket(at->ai_family, SOCK_STREAM | flags, 0));
    if (fd) {
      set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
      if (reuse_port) set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
      if (::bind(fd.get(), at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd.get(), backlog) == 0) {
        return fd;
      }
    }
    // Of a machine without IPv6 the second address tells more than the first.
    if (error == 0 || error == EAFNOSUPPORT || error == EADDRNOTAVAIL) error = errno;
  }
  return system_failure("08006", where, error);
}

result<unique_fd> listen_unix(const std::string& path, int type, unsigned mode) {
  const auto address = unix_address(path);
  if (!address) return tl::unexpected(address.error());
  if (auto gone = remove_stale(path, type, *address); !gone) return tl::unexpected(gone.error());
  const std::string where = fmt::format("could not listen on \"{}\"", path);
  unique_fd fd(::socket(AF_UNIX, type | flags, 0));
  if (!fd) return system_failure("08006", where, errno);
  // Before listen() every connect is refused, so the mode is in effect in time; fchmod first
  // keeps even that moment narrow.
  ::fchmod(fd.get(), mode);
  if (::bind(fd.get(), generic(*address), sizeof *address) != 0 ||
      ::chmod(path.c_str(), mode) != 0 || ::listen(fd.get(), SOMAXCONN) != 0)
    return system_failure("08006", where, errno);
  return fd;
}

result<unique_fd> connect_tcp(const sockaddr* address, socklen_t length) {
  unique_fd fd(::socket(address->sa_family, SOCK_STREAM | flags, 0));
  if (!fd) return system_failure("08001", "could not create a socket", errno);
  if (::connect(fd.get(), address, length) != 0 && errno != EINPROGRESS)
    return system_failure("08001", "could not connect", errno);
  return fd;
}

result<unique_fd> connect_unix(const std::string& path, int type) {
  const auto address = unix_address(path);
  if (!address) return tl::unexpected(address.error());
  unique_fd fd(::socket(AF_UNIX, type | flags, 0));
  if (!fd) return system_failure("08001", "could not create a socket", errno);
  if (::connect(fd.get(), generic(*address), sizeof *address) != 0 && errno != EINPROGRESS)
    return system_failure("08001", fmt::format("could not connect to \"{}\"", path), errno);
  return fd;
}

int connect_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

std::uint16_t local_port(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return 0;
  if (storage.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in&>(storage).sin_port);
  if (storage.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<sockaddr_in6&>(storage).sin6_port);
  return 0;
}

void apply(int fd, const tcp_options& options) {
  int family = 0;
  socklen_t length = sizeof family;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return;
  if (family != AF_INET && family != AF_INET6) return;
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, options.keepalive ? 1 : 0);
  const auto unless_zero = [fd](int name, int value) {
    if (value > 0) set_option(fd, IPPROTO_TCP, name, value);
  };
  unless_zero(TCP_KEEPIDLE, options.keepalive_idle_s);
  unless_zero(TCP_KEEPINTVL, options.keepalive_interval_s);
  unless_zero(TCP_KEEPCNT, options.keepalive_retries);
  unless_zero(TCP_USER_TIMEOUT, options.user_timeout_ms);
}

std::pair<unique_fd, unique_fd> stream_pair() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | flags, 0, ends) != 0) return {};
  return {unique_fd(ends[0]), unique_fd(ends[1])};
}

ssize_t send_with_fd(int socket, std::span<const std::uint8_t> message, int fd_or_minus_one) {
  iovec part{const_cast<std::uint8_t*>(message.data()), message.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd_or_minus_one >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd_or_minus_one, sizeof(int));
  }
  ssize_t n;
  do n = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

ssize_t receive_with_fd(int socket, std::span<std::uint8_t> buffer, unique_fd& fd) {
  iovec part{buffer.data(), buffer.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 4)> control{};
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t n;
  do n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      unique_fd owned(received);  // more than one is against the rules: the rest is closed
      if (!fd) fd = std::move(owned);
    }
  }
  if ((header.msg_flags & MSG_TRUNC) != 0) return -EMSGSIZE;
  // A process without free descriptors loses what comes with the message, and nothing else.
  if ((header.msg_flags & MSG_CTRUNC) != 0) fd.reset();
  return n;
}

}  // namespace pgsled::net
