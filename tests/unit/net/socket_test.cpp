#include "common/net/socket.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace pgsled::net {
namespace {

struct directory {
  directory() { path = ::mkdtemp(name.data()); }
  ~directory() { std::filesystem::remove_all(path); }
  std::string name = "/tmp/pgsled-net-XXXXXX", path;
};

TEST(socket, tcp_listen_and_connect) {
  const auto listener = listen_tcp("127.0.0.1", 0, true, 16);
  ASSERT_TRUE(listener);
  const auto port = local_port(listener->get());
  ASSERT_NE(port, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto client = connect_tcp(reinterpret_cast<sockaddr*>(&address), sizeof address);
  ASSERT_TRUE(client);
  pollfd wait{client->get(), POLLOUT, 0};
  ASSERT_EQ(::poll(&wait, 1, 2000), 1);
  EXPECT_EQ(connect_error(client->get()), 0);
  tcp_options options;
  options.keepalive_idle_s = 17;
  apply(client->get(), options);
  int value = 0;
  socklen_t length = sizeof value;
  ::getsockopt(client->get(), IPPROTO_TCP, TCP_KEEPIDLE, &value, &length);
  EXPECT_EQ(value, 17);
  EXPECT_NE(::fcntl(client->get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(client->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(socket, a_taken_port_and_a_bad_address_are_errors_with_words) {
  const auto first = listen_tcp("127.0.0.1", 0, false, 1);
  ASSERT_TRUE(first);
  const auto second = listen_tcp("127.0.0.1", local_port(first->get()), false, 1);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().sqlstate, "08006");
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  EXPECT_FALSE(listen_tcp("example.org", 0, false, 1));
}

TEST(socket, unix_listener_replaces_only_a_stale_socket) {
  const directory d;
  const std::string path = d.path + "/s";
  {
    const auto dead = listen_unix(path, SOCK_SEQPACKET, 0600);
    ASSERT_TRUE(dead);
  }
  const auto alive = listen_unix(path, SOCK_SEQPACKET, 0640);
  ASSERT_TRUE(alive);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
  EXPECT_FALSE(listen_unix(path, SOCK_SEQPACKET, 0600));
  std::ofstream(d.path + "/file") << "precious";
  EXPECT_FALSE(listen_unix(d.path + "/file", SOCK_STREAM, 0600));
  EXPECT_TRUE(std::filesystem::exists(d.path + "/file"));
  EXPECT_FALSE(listen_unix(d.path + "/" + std::string(200, 'x'), SOCK_STREAM, 0600));
  EXPECT_FALSE(connect_unix(d.path + "/nobody", SOCK_STREAM));
}

TEST(socket, passes_one_descriptor_with_a_message) {
  const directory d;
  const auto listener = listen_unix(d.path + "/s", SOCK_SEQPACKET, 0600);
  ASSERT_TRUE(listener);
  const auto client = connect_unix(d.path + "/s", SOCK_SEQPACKET);
  ASSERT_TRUE(client);
  const unique_fd server(::accept4(listener->get(), nullptr, nullptr, SOCK_NONBLOCK));
  ASSERT_TRUE(server);
  auto [near, far] = stream_pair();
  const std::array<std::uint8_t, 3> message{1, 2, 3};
  EXPECT_EQ(send_with_fd(client->get(), message, far.get()), 3);
  EXPECT_EQ(send_with_fd(client->get(), message, -1), 3);
  std::array<std::uint8_t, 16> buffer{};
  unique_fd passed;
  EXPECT_EQ(receive_with_fd(server.get(), buffer, passed), 3);
  ASSERT_TRUE(passed);
  ASSERT_EQ(::write(passed.get(), "hi", 2), 2);
  char text[2];
  EXPECT_EQ(::read(near.get(), text, 2), 2);
  unique_fd none;
  EXPECT_EQ(receive_with_fd(server.get(), buffer, none), 3);
  EXPECT_FALSE(none);
  EXPECT_EQ(receive_with_fd(server.get(), buffer, none), -EAGAIN);
  EXPECT_EQ(send_with_fd(client->get(), message, -1), 3);
  EXPECT_EQ(receive_with_fd(server.get(), std::span(buffer).first(2), none), -EMSGSIZE);
}

}  // namespace
}  // namespace pgsled::net
