#include "common/app/app.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace pgsled::app {
namespace {

using testing::HasSubstr;

std::optional<options> parse(const std::string& service, std::vector<std::string> words,
                             int& status) {
  words.insert(words.begin(), "pgsled-" + service);
  std::vector<char*> argv;
  for (auto& w : words) argv.push_back(w.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  auto out = parse_command_line(service, static_cast<int>(argv.size()), argv.data(), status);
  testing::internal::GetCapturedStdout();
  testing::internal::GetCapturedStderr();
  return out;
}

TEST(command_line, defaults_and_values) {
  int status = -1;
  const auto plain = parse("frontend", {"--run-dir", "/tmp/x"}, status);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->router, "ipc:///tmp/x/router.bus");
  EXPECT_EQ(plain->instance, fmt::format("frontend-{}", ::getpid()));
  EXPECT_EQ(plain->http, "127.0.0.1:0");
  const auto full = parse(
      "pooler",
      {"--instance", "pooler-1", "--databases", "a,b", "--http", "0.0.0.0:9090"}, status);
  ASSERT_TRUE(full);
  EXPECT_EQ(full->instance, "pooler-1");
  EXPECT_EQ(full->databases, "a,b");
}

TEST(command_line, mistakes_exit_with_2_and_questions_with_0) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"--instance", "a/b"}, {"--instance", ".."}, {"--instance", ""}, {"--http", "nonsense"},
           {"--http", "h:99999"}, {"--what"}, {"--router", "tcp://127.0.0.1:1"},
           {"--router", "udp://x"},
           {"--log-level", "loud"}, {"--run-dir", std::string(120, 'x')}, {"--config", "f"}}) {
    int status = -1;
    EXPECT_FALSE(parse("frontend", words, status)) << words.front();
    EXPECT_EQ(status, 2) << words.front();
  }
  int status = -1;
  EXPECT_FALSE(parse("router", {}, status));  // needs its files
  EXPECT_EQ(status, 2);
  EXPECT_FALSE(parse("router", {"--help"}, status));
  EXPECT_EQ(status, 0);
  status = -1;
  EXPECT_FALSE(parse("router", {"--version"}, status));
  EXPECT_EQ(status, 0);
}

TEST(command_line, the_environment_stands_in_for_what_is_not_given) {
  ::setenv("PGSLED_RUN_DIR", "/tmp/env", 1);
  ::setenv("PGSLED_HTTP", "0.0.0.0:9100", 1);
  ::setenv("PGSLED_RELAY", "", 1);
  int status = -1;
  const auto some = parse("pooler", {"--http", "127.0.0.1:1"}, status);
  ASSERT_TRUE(some);
  EXPECT_EQ(some->run_dir, "/tmp/env");
  EXPECT_EQ(some->router, "ipc:///tmp/env/router.bus");
  EXPECT_EQ(some->http, "127.0.0.1:1");
  EXPECT_EQ(some->relay, "");
  ::setenv("PGSLED_CONFIG", "a", 1);
  ::setenv("PGSLED_USERS", "b", 1);
  const auto router = parse("router", {}, status);
  ASSERT_TRUE(router);
  EXPECT_EQ(router->http, "0.0.0.0:9100");
  EXPECT_EQ(router->users, "b");
  ::setenv("PGSLED_HTTP", "nonsense", 1);
  EXPECT_FALSE(parse("router", {}, status));
  EXPECT_EQ(status, 2);
  for (const char* name : {"RUN_DIR", "HTTP", "RELAY", "CONFIG", "USERS"}) {
    ::unsetenv((std::string("PGSLED_") + name).c_str());
  }
}

TEST(identity, a_machine_is_its_kernel_whatever_the_network_namespace) {
  EXPECT_TRUE(same_machine("b-1/net:[1]", "b-1/net:[2]"));
  EXPECT_TRUE(same_machine(host_identity(), host_identity()));
  EXPECT_FALSE(same_machine("b-1/net:[1]", "b-10/net:[1]"));
  EXPECT_FALSE(same_machine("b-1/net:[1]", "b-2/net:[1]"));
  EXPECT_FALSE(same_machine("/net:[1]", "/net:[1]"));
  EXPECT_FALSE(same_machine("", ""));
}

TEST(identity, is_stable_for_a_host_and_random_for_a_start) {
  EXPECT_EQ(host_identity(), host_identity());
  EXPECT_THAT(host_identity(), HasSubstr("net:["));
  EXPECT_EQ(random_id().size(), 16u);
  EXPECT_NE(random_id(), random_id());
}

TEST(curve, keys_are_read_and_checked) {
  std::string name = "/tmp/pgsled-app-XXXXXX";
  const std::string dir = ::mkdtemp(name.data());
  EXPECT_TRUE(load_curve("").secret_key.empty());
  EXPECT_THROW(load_curve(dir), std::runtime_error);
  const auto server = bus::make_curve_pair(), client = bus::make_curve_pair();
  std::ofstream(dir + "/server.public") << server.public_key << "\n";
  std::ofstream(dir + "/server.secret") << server.secret_key << "\n";
  std::ofstream(dir + "/client.public") << client.public_key << "\n";
  std::ofstream(dir + "/client.secret") << client.secret_key << "\n";
  EXPECT_EQ(load_curve(dir).server_public_key, server.public_key);
  EXPECT_EQ(load_curve_server(dir).secret_key, server.secret_key);
  EXPECT_EQ(load_curve_clients(dir), std::vector<std::string>{client.public_key});
  std::ofstream(dir + "/client.secret") << server.secret_key << "\n";
  EXPECT_THROW(load_curve(dir), std::runtime_error);
  std::filesystem::remove_all(dir);
}

std::string fetch(const std::string& address, const std::string& path,
                  const std::string& accept = "") {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const auto text = "GET " + path + " HTTP/1.0\r\nAccept: " + accept + "\r\n\r\n";
  EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  return out;
}

// In a child, because signals and limits are the whole process's.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    const int status = body();
    ::_exit(testing::Test::HasFailure() ? 99 : status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

options in(const std::string& dir) {
  options o;
  o.service = "frontend";
  o.instance = "frontend-1";
  o.run_dir = dir;
  return o;
}

struct manager {   // the other end of NOTIFY_SOCKET
  explicit manager(const std::string& path) : fd(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof at.sun_path - 1);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    timeval most{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  }
  ~manager() { ::close(fd); }
  std::string next() const {
    char text[2000];
    const auto n = ::recv(fd, text, sizeof text, 0);
    return n < 0 ? "nothing" : std::string(text, static_cast<std::size_t>(n));
  }
  int fd;
};

TEST(process, tells_a_service_manager_how_it_fares) {
  std::string name = "/tmp/pgsled-app-XXXXXX";
  const std::string dir = ::mkdtemp(name.data());
  const int status = in_child([&] {
    const manager systemd(dir + "/notify");
    ::setenv("NOTIFY_SOCKET", (dir + "/notify").c_str(), 1);
    process p(in(dir + "/run"));
    std::atomic<bool> configured{false};
    std::function<void(std::string)> finish;
    std::atomic<bool> reload_begun{false};
    std::atomic<bool> drained{false};
    hooks h;
    h.ready = [&] { return configured ? "" : "no router\nSTOPPING=1"; };
    h.drain = [&] { drained = true; };
    h.reload = [&](auto done) {
      finish = std::move(done);
      reload_begun = true;
    };
    h.run = [&] {
      EXPECT_EQ(systemd.next(), "STATUS=waits: no router");
      configured = true;
      EXPECT_EQ(systemd.next(), "READY=1\nSTATUS=ready");
      ::kill(::getpid(), SIGHUP);
      EXPECT_THAT(systemd.next(),
                  testing::MatchesRegex("RELOADING=1\nMONOTONIC_USEC=[0-9]+\nSTATUS=reloading"));
      while (!reload_begun) ::usleep(1000);
      finish("reload refused: pgdog.toml:3: no such key\nmore");
      EXPECT_EQ(systemd.next(), "READY=1\nSTATUS=reload refused: pgdog.toml:3: no such key");
      ::kill(::getpid(), SIGTERM);
      EXPECT_EQ(systemd.next(), "STOPPING=1\nSTATUS=draining");
      while (!drained) ::usleep(1000);
      return 0;
    };
    return p.run(h);
  });
  EXPECT_EQ(status, 0);
  std::filesystem::remove_all(dir);
}

TEST(process, serves_http_reloads_and_drains) {
  std::string name = "/tmp/pgsled-app-XXXXXX";
  const std::string dir = std::string(::mkdtemp(name.data())) + "/deep/run";
  const int status = in_child([&] {
    net::reactor loop;
    process p(in(dir));
    std::atomic<int> reloads{0};
    std::string missing = "no snapshot yet";
    hooks h;
    h.ready = [&] { return missing; };
    h.drain = [&] { loop.stop(); };
    h.reload = [&](auto done) {
      ++reloads;
      done("");
      ::kill(::getpid(), SIGTERM);
    };
    h.run = [&] {
      EXPECT_THAT(fetch(p.http_address(), "/healthz"), HasSubstr(" 200 "));
      EXPECT_THAT(fetch(p.http_address(), "/readyz"),
                  testing::AllOf(HasSubstr(" 503 "), HasSubstr("no snapshot")));
      missing.clear();
      EXPECT_THAT(fetch(p.http_address(), "/readyz"), HasSubstr(" 200 "));
      EXPECT_THAT(fetch(p.http_address(), "/metrics"),
                  HasSubstr("pgsled_build_info{version=\"" PGSLED_VERSION
                            "\",service=\"frontend\",instance=\"frontend-1\"} 1"));
      EXPECT_THAT(fetch(p.http_address(), "/metrics", "application/openmetrics-text"),
                  HasSubstr("# EOF\n"));
      EXPECT_THAT(fetch(p.http_address(), "/nothing"), HasSubstr(" 404 "));
      struct stat status_of {};
      EXPECT_EQ(::stat(dir.c_str(), &status_of), 0);
      EXPECT_EQ(status_of.st_mode & 0777, 0700u);
      rlimit limit{};
      ::getrlimit(RLIMIT_NOFILE, &limit);
      EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
      ::kill(::getpid(), SIGHUP);
      loop.run();
      EXPECT_EQ(reloads, 1);
      return 7;
    };
    return p.run(std::move(h));
  });
  EXPECT_EQ(status, 7);
  std::filesystem::remove_all(name);
}

TEST(process, a_second_signal_ends_it_at_once) {
  std::string name = "/tmp/pgsled-app-XXXXXX";
  const std::string dir = ::mkdtemp(name.data());
  const int status = in_child([&] {
    process p(in(dir));
    hooks h;
    h.drain = [] { ::kill(::getpid(), SIGTERM); };  // and the drain never ends
    h.run = [] {
      ::kill(::getpid(), SIGTERM);
      ::sleep(20);
      return 0;
    };
    return p.run(std::move(h));
  });
  EXPECT_EQ(status, 128 + SIGTERM);
  std::filesystem::remove_all(dir);
}

TEST(process, a_taken_http_port_or_an_exception_is_a_failure) {
  std::string name = "/tmp/pgsled-app-XXXXXX";
  const std::string dir = ::mkdtemp(name.data());
  EXPECT_EQ(in_child([&] {
    process p(in(dir));
    hooks h;
    h.run = []() -> int { throw std::runtime_error("bad"); };
    return p.run(std::move(h));
  }), 1);
  EXPECT_EQ(in_child([&] {
    process first(in(dir));
    hooks h;
    h.run = [&] {
      auto taken = in(dir);
      taken.http = first.http_address();
      process second(taken);
      hooks inner;
      inner.run = [] { return 0; };
      return second.run(std::move(inner));
    };
    return first.run(std::move(h));
  }), 1);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace pgsled::app
