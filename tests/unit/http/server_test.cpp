#include "common/http/server.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pgsled::http {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

int dial(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const timeval limit{3, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return fd;
}
std::string read_all(int fd) {
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  return out;
}
std::string fetch(const std::string& address, const std::string& text) {
  const int fd = dial(address);
  EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  return read_all(fd);
}

struct http_server : testing::Test {
  http_server() {
    const auto at = it.start("127.0.0.1:0", [](const request& r) -> response {
      if (r.path == "/boom") throw std::runtime_error("boom");
      return {r.path == "/missing" ? 404u : 200u, "text/plain", r.path + "|" + r.accept};
    });
    EXPECT_TRUE(at) << at.error().message;
    address = *at;
  }
  server it;
  std::string address;
};

TEST_F(http_server, serves_paths_and_passes_accept) {
  EXPECT_THAT(fetch(address, "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: text/x\r\n"
                             "Connection: close\r\n\r\n"),
              testing::AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("/metrics|text/x")));
  EXPECT_THAT(fetch(address, "GET /missing HTTP/1.0\r\n\r\n"), HasSubstr(" 404 "));
  EXPECT_THAT(fetch(address, "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n"), HasSubstr(" 405 "));
  EXPECT_THAT(fetch(address, "GET /boom HTTP/1.0\r\n\r\n"), HasSubstr(" 500 "));
}

TEST_F(http_server, keeps_connections_alive) {
  const auto out = fetch(address, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
                                  "GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(out, HasSubstr("/a|"));
  EXPECT_THAT(out, HasSubstr("/b|"));
}

TEST_F(http_server, garbage_and_too_much_end_the_connection_only) {
  EXPECT_THAT(fetch(address, "\x16\x03\x01 what\r\n\r\n"), testing::Not(HasSubstr("200")));
  // The answer may be lost to a reset, as the server stops reading.
  const int fd = dial(address);
  const std::string big = "GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\n\r\n";
  [[maybe_unused]] const auto n = ::send(fd, big.data(), big.size(), MSG_NOSIGNAL);
  EXPECT_THAT(read_all(fd), testing::Not(HasSubstr("200")));
  EXPECT_THAT(fetch(address, "GET /ok HTTP/1.0\r\n\r\n"), HasSubstr("/ok|"));
}

TEST_F(http_server, the_sixty_fifth_connection_is_closed) {
  std::vector<int> held;
  for (int i = 0; i < 64; ++i) held.push_back(dial(address));
  ::usleep(50'000);
  EXPECT_EQ(read_all(dial(address)), "");
  for (const int fd : held) ::close(fd);
  ::usleep(50'000);
  EXPECT_THAT(fetch(address, "GET /ok HTTP/1.0\r\n\r\n"), HasSubstr("/ok|"));
}

TEST_F(http_server, a_taken_or_malformed_address_is_an_error) {
  server other;
  EXPECT_FALSE(other.start(address, [](const request&) { return response{}; }));
  server third;
  EXPECT_FALSE(third.start("nonsense", [](const request&) { return response{}; }));
}

}  // namespace
}  // namespace pgsled::http
