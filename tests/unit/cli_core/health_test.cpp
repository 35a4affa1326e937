#include "services/cli/health.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "common/net/socket.hpp"

namespace pgsled::cli {
namespace {

using testing::HasSubstr;

struct outcome {
  int status;
  std::string out, err;
};

outcome ask(const std::string& address) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = health(address);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

// Answers one connection with what it is given, in two pieces; empty: closes without a word.
outcome ask_one_that_says(const std::string& answer) {
  const auto listener = net::listen_tcp("127.0.0.1", 0, false, 1);
  EXPECT_TRUE(listener);
  const int port = net::local_port(listener->get());
  std::thread peer([&] {
    pollfd waits{listener->get(), POLLIN, 0};
    ::poll(&waits, 1, 5000);
    const net::unique_fd got(::accept(listener->get(), nullptr, nullptr));
    std::string asked(1000, 0);
    asked.resize(static_cast<std::size_t>(
        std::max<ssize_t>(0, ::recv(got.get(), asked.data(), asked.size(), 0))));
    EXPECT_THAT(asked, HasSubstr("GET /readyz HTTP/1.1\r\n"));
    ::send(got.get(), answer.data(), answer.size() / 2, MSG_NOSIGNAL);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ::send(got.get(), answer.data() + answer.size() / 2, answer.size() - answer.size() / 2,
           MSG_NOSIGNAL);
  });
  auto got = ask("0.0.0.0:" + std::to_string(port));
  peer.join();
  return got;
}

TEST(health, says_what_the_process_says) {
  const auto ready = ask_one_that_says("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n");
  EXPECT_EQ(ready.status, 0);
  EXPECT_EQ(ready.out, "ready\n");
  const auto waits = ask_one_that_says("HTTP/1.1 503 x\r\n\r\nthe router is not there\n");
  EXPECT_EQ(waits.status, 1);
  EXPECT_EQ(waits.out, "the router is not there\n");
}

TEST(health, what_is_no_answer_is_not_ready) {
  for (const auto& answer : {std::string(), std::string("HTTP/1.1 200"), std::string("nonsense"),
                             std::string(100'000, 'x')}) {
    EXPECT_EQ(ask_one_that_says(answer).status, 1) << answer.substr(0, 20);
  }
}

TEST(health, names_who_does_not_answer) {
  int port = 0;
  {
    const auto free = net::listen_tcp("127.0.0.1", 0, false, 1);
    port = net::local_port(free->get());
  }
  const auto nobody = ask("127.0.0.1:" + std::to_string(port));
  EXPECT_EQ(nobody.status, 1);
  EXPECT_THAT(nobody.err, HasSubstr("Connection refused"));
  for (const char* address : {"", "nonsense", "1.2.3.4:http", "name.example:1", ":x"}) {
    EXPECT_EQ(ask(address).status, 2) << address;
  }
}

}  // namespace
}  // namespace pgsled::cli
