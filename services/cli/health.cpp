#include "services/cli/health.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>

#include "common/net/socket.hpp"

namespace pgsled::cli {
namespace {

constexpr std::chrono::milliseconds patience{3000};
constexpr std::size_t longest_answer = 8192;

using steady = std::chrono::steady_clock;

bool wait(int fd, short events, steady::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady::now()).count();
  pollfd one{fd, events, 0};
  return left > 0 && ::poll(&one, 1, static_cast<int>(left)) == 1;
}

// The whole answer; what went wrong as failure.
result<std::string> ask(const sockaddr* at, socklen_t size, const std::string& request) {
  const auto until = steady::now() + patience;
  auto fd = net::connect_tcp(at, size);
  if (!fd) return tl::unexpected(fd.error());
  const auto silent = [] { return failure("57P03", "no answer within 3 s"); };
  if (!wait(fd->get(), POLLOUT, until)) return silent();
  if (const int error = net::connect_error(fd->get()); error != 0) {
    return failure("08001", std::strerror(error));
  }
  // A new connection takes a hundred bytes at once.
  if (::send(fd->get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return failure("08006", std::strerror(errno));
  }
  std::string answer;
  std::array<char, 1024> piece{};
  while (answer.size() < longest_answer) {
    if (!wait(fd->get(), POLLIN, until)) return silent();
    const auto got = ::recv(fd->get(), piece.data(), piece.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got < 0) return failure("08006", std::strerror(errno));
    if (got == 0) break;
    answer.append(piece.data(), static_cast<std::size_t>(got));
  }
  return answer;
}

}  // namespace

int health(const std::string& address) {
  const auto colon = address.rfind(':');
  auto host = address.substr(0, colon == std::string::npos ? 0 : colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host == "0.0.0.0") host = "127.0.0.1";
  if (host == "::") host = "::1";
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  if (colon == std::string::npos ||
      ::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) {
    fmt::print(stderr, "pgsled health: \"{}\" is not HOST:PORT\n", address);
    return 2;
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, ::freeaddrinfo);
  const auto answer = ask(found->ai_addr, found->ai_addrlen,
                          "GET /readyz HTTP/1.1\r\nHost: pgsled\r\nConnection: close\r\n\r\n");
  if (!answer) {
    fmt::print(stderr, "{}: {}\n", address, answer.error().message);
    return 1;
  }
  const auto body = answer->find("\r\n\r\n");
  fmt::print("{}", body == std::string::npos ? *answer : answer->substr(body + 4));
  return answer->starts_with("HTTP/1.1 200 ") || answer->starts_with("HTTP/1.0 200 ") ? 0 : 1;
}

}  // namespace pgsled::cli
