// The driver with shell scripts in the place of the services.

#include "services/cli/up.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "common/net/socket.hpp"

namespace pgsled::cli {
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
namespace {

struct up_test : ::testing::Test {
  fs::path base, run;
  pid_t pid = -1;

  void SetUp() override {
    std::string name = "/tmp/pgsled-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    base = name;
    run = base / "run";
    write("pgdog.toml", "[general]\nhost = \"127.0.0.1\"\nport = " + std::to_string(free_port()) +
                            "\n[[databases]]\nname = \"app\"\nhost = \"127.0.0.1\"\n");
    write("users.toml", "[[users]]\nname = \"a\"\ndatabase = \"app\"\npassword = \"p\"\n");
    // Each notes its start and how it was told to stop in one log.
    const std::string script =
        "#!/bin/sh\n"
        "while [ $# -gt 0 ]; do case $1 in --instance) me=$2;; esac; shift; done\n"
        "echo $$ > " + base.string() + "/$me.pid\n"
        "echo start $me >> " + base.string() + "/log\n"
        "trap 'echo stop $me >> " + base.string() + "/log; exit 0' TERM\n"
        "trap 'echo reload $me >> " + base.string() + "/log' HUP\n"
        "while :; do sleep 0.02; done\n";
    for (const auto* service : {"router", "pooler", "replicator", "frontend"}) {
      const auto program = std::string("pgsled-") + service;
      write(program, script);
      ::chmod((base / program).c_str(), 0755);
    }
  }
  void TearDown() override {
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    fs::remove_all(base);
  }

  static std::uint16_t port_of(const net::unique_fd& socket) {
    sockaddr_in address{};
    socklen_t length = sizeof address;
    ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.sin_port);
  }
  static std::uint16_t free_port() { return port_of(*net::listen_tcp("127.0.0.1", 0, false, 1)); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(base / name) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream stream(base / name);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::vector<std::string> log() const {
    std::ifstream stream(base / "log");
    std::vector<std::string> lines;
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }
  pid_t launch(const std::string& errors = "errors") const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    const int fd = ::open((base / errors).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(fd, STDERR_FILENO);
    up_options options;
    options.config = base / "pgdog.toml";
    options.users = base / "users.toml";
    options.run_dir = run;
    options.binaries = base;
    options.frontends = 2;
    ::_exit(up(options));
  }
  template <class Condition>
  bool eventually(Condition holds, std::chrono::milliseconds patience = 10s) const {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }
  pid_t pid_of(const std::string& instance) const {
    const auto text = read(instance + ".pid");
    return text.empty() ? -1 : static_cast<pid_t>(std::stol(text));
  }
  static bool alive(pid_t process) { return process > 0 && ::kill(process, 0) == 0; }
  int wait_for_end() {
    int status = 0;
    ::waitpid(pid, &status, 0);
    pid = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
};

TEST_F(up_test, starts_restarts_reloads_and_drains_in_order) {
  pid = launch();
  ASSERT_TRUE(eventually([&] { return log().size() == 5; })) << read("errors");
  const pid_t old = pid_of("pooler-1");
  ::kill(old, SIGKILL);
  ASSERT_TRUE(eventually([&] { return log().size() == 6; }));
  EXPECT_EQ(log().back(), "start pooler-1");
  EXPECT_TRUE(eventually([&] { return pid_of("pooler-1") != old; }));

  ::kill(pid, SIGHUP);
  ASSERT_TRUE(eventually([&] { return log().size() == 7; }));
  EXPECT_EQ(log().back(), "reload router-1");

  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for_end(), 0) << read("errors");
  auto lines = log();
  ASSERT_EQ(lines.size(), 12u);
  lines.erase(lines.begin(), lines.begin() + 7);
  std::sort(lines.begin(), lines.begin() + 2);
  EXPECT_THAT(lines, ElementsAre("stop frontend-1", "stop frontend-2", "stop pooler-1",
                                 "stop replicator-1", "stop router-1"));
}

TEST_F(up_test, takes_its_children_with_it) {
  pid = launch();
  const std::vector<std::string> all = {"router-1", "pooler-1", "replicator-1", "frontend-1",
                                        "frontend-2"};
  ASSERT_TRUE(eventually([&] {
    return std::all_of(all.begin(), all.end(), [&](auto& one) { return alive(pid_of(one)); });
  }));
  ::kill(pid, SIGKILL);
  wait_for_end();
  for (const auto& one : all) {
    // Nobody of ours may reap them: a zombie counts as dead.
    EXPECT_TRUE(eventually([&] {
      std::ifstream stat("/proc/" + std::to_string(pid_of(one)) + "/stat");
      const std::string text{std::istreambuf_iterator<char>(stat), {}};
      return text.empty() || text.find(") Z ") != std::string::npos;
    })) << one;
  }
}

TEST_F(up_test, a_second_one_says_who_is_first) {
  pid = launch();
  ASSERT_TRUE(eventually([&] { return log().size() == 5; }));
  const pid_t second = launch("errors2");
  int status = 0;
  ::waitpid(second, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(read("errors2"), HasSubstr("in use by process " + std::to_string(pid)));
}

TEST_F(up_test, starts_nothing_with_a_bad_configuration) {
  write("pgdog.toml", "[general]\nport = 0\nprt = 1\n");
  pid = launch();
  EXPECT_EQ(wait_for_end(), 2);
  EXPECT_THAT(read("errors"), HasSubstr("pgdog.toml:2: general.port: must be"));
  EXPECT_THAT(read("errors"), HasSubstr("pgdog.toml:3: general.prt: unknown key"));
  EXPECT_THAT(read("errors"), HasSubstr("users.toml:3: users.database"));
  EXPECT_FALSE(fs::exists(run));
}

TEST_F(up_test, starts_nothing_on_a_port_that_is_taken) {
  const auto taken = net::listen_tcp("127.0.0.1", 0, true, 1);  // as the frontends of a suite do
  ASSERT_TRUE(taken.has_value());
  const auto port = std::to_string(port_of(*taken));
  write("pgdog.toml", "[general]\nhost = \"127.0.0.1\"\nport = " + port +
                          "\n[[databases]]\nname = \"app\"\nhost = \"127.0.0.1\"\n");
  pid = launch();
  EXPECT_EQ(wait_for_end(), 1);
  const auto said = read("errors");
  EXPECT_THAT(said, HasSubstr(port + ": Address already in use"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_TRUE(log().empty());
}

TEST_F(up_test, a_router_that_ends_well_ends_the_suite) {
  pid = launch();
  ASSERT_TRUE(eventually([&] { return log().size() == 5; })) << read("errors");
  ::kill(pid_of("router-1"), SIGTERM);
  EXPECT_EQ(wait_for_end(), 0) << read("errors");
  const auto lines = log();
  EXPECT_EQ(lines.size(), 10u);
  EXPECT_EQ(lines.back(), "stop replicator-1");
}

TEST_F(up_test, leaves_what_is_not_acted_on_to_the_router) {
  write("pgdog.toml", "[general]\nhost = \"127.0.0.1\"\nban_timeout = 1234\nport = " +
                          std::to_string(free_port()) +
                          "\n[[databases]]\nname = \"app\"\nhost = \"127.0.0.1\"\n");
  pid = launch();
  ASSERT_TRUE(eventually([&] { return log().size() == 5; })) << read("errors");
  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for_end(), 0);
  EXPECT_THAT(read("errors"), Not(HasSubstr("ban_timeout")));
}

TEST_F(up_test, names_a_program_that_is_missing) {
  fs::remove(base / "pgsled-pooler");
  pid = launch();
  EXPECT_EQ(wait_for_end(), 2);
  EXPECT_THAT(read("errors"), HasSubstr("pgsled-pooler: No such file"));
}

TEST_F(up_test, a_second_signal_ends_it_at_once) {
  write("pgsled-frontend", "#!/bin/sh\ntrap '' TERM\necho start >> " + base.string() +
                               "/log\nwhile :; do sleep 0.02; done\n");
  pid = launch();
  ASSERT_TRUE(eventually([&] { return log().size() == 5; }));
  const auto began = std::chrono::steady_clock::now();
  ::kill(pid, SIGTERM);
  std::this_thread::sleep_for(100ms);
  ::kill(pid, SIGINT);
  EXPECT_EQ(wait_for_end(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 3s);
}

}  // namespace
}  // namespace pgsled::cli
