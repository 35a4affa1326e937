#include "services/cli/up.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/config/config.hpp"
#include "common/log/log.hpp"
#include "common/net/socket.hpp"
#include "services/cli/run_dir.hpp"
#include "services/cli/supervisor.hpp"

namespace pgsled::cli {
namespace {

using steady = std::chrono::steady_clock;

struct child {
  std::string instance;
  std::vector<std::string> arguments;  // the program first
  pid_t pid = -1;
};

std::string own_directory() {
  std::error_code ec;
  return std::filesystem::read_symlink("/proc/self/exe", ec).parent_path().string();
}

// Between fork and exec: nothing that may allocate or lock.
[[noreturn]] void become(pid_t parent, char* const* arguments) {
  // Own group: Ctrl-C reaches the supervisor only, and children drain in its order.
  ::setpgid(0, 0);
  // A drain without a supervisor could hold port and sockets for a minute: SIGKILL.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (const int null = ::open("/dev/null", O_RDONLY); null >= 0) ::dup2(null, STDIN_FILENO);
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  ::execv(arguments[0], arguments);
  ::_exit(127);
}

pid_t spawn(const std::vector<std::string>& arguments) {
  std::vector<char*> raw;
  for (const auto& one : arguments) raw.push_back(const_cast<char*>(one.c_str()));
  raw.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become(parent, raw.data());
  return pid;
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) {
    return fmt::format("by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  }
  const int code = WEXITSTATUS(status);
  return code == 127 ? "with status 127 (could not be executed)"
                     : fmt::format("with status {}", code);
}

class driver {
 public:
  driver(supervisor machine, std::vector<child> children)
      : machine_(std::move(machine)), children_(std::move(children)) {}

  // The signals are blocked from before the first child on.
  int run() {
    sigset_t mine;
    ::sigemptyset(&mine);
    for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&mine, number);
    ::sigprocmask(SIG_BLOCK, &mine, nullptr);
    const int signals = ::signalfd(-1, &mine, SFD_CLOEXEC | SFD_NONBLOCK);
    PGSLED_ASSERT(signals >= 0);
    act(machine_.begin(steady::now()));
    while (!machine_.finished()) {
      pollfd wait{signals, POLLIN, 0};
      ::poll(&wait, 1, timeout_ms());
      signalfd_siginfo info{};
      while (::read(signals, &info, sizeof info) == sizeof info) {
        on_signal(static_cast<int>(info.ssi_signo));
      }
      reap();  // one SIGCHLD may stand for several
      act(machine_.tick(steady::now()));
    }
    ::close(signals);
    log::info("up", "all processes have ended");
    return 0;
  }

 private:
  int timeout_ms() const {
    const auto due = machine_.next();
    if (!due) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*due - steady::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
  }

  void on_signal(int number) {
    if (number == SIGHUP) {
      log::info("up", "SIGHUP: the router reloads");
      act(machine_.reload());
    } else if (number == SIGTERM || number == SIGINT) {
      log::info("up", "{}: {}", number == SIGTERM ? "SIGTERM" : "SIGINT",
                machine_.stopping() ? "ending at once" : "draining");
      act(machine_.stop(steady::now()));
    }
  }

  void reap() {
    int status = 0;
    for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      for (std::size_t i = 0; i < children_.size(); ++i) {
        if (children_[i].pid == pid) {
          ended(i, how_it_ended(status), WIFEXITED(status) && WEXITSTATUS(status) == 0);
        }
      }
    }
  }

  void ended(std::size_t index, const std::string& how, bool clean = false) {
    auto& one = children_[index];
    const auto pid = one.pid;
    one.pid = -1;
    const bool before = machine_.stopping();
    const auto next = machine_.ended(index, steady::now(), clean);
    if (machine_.stopping()) {
      log::info("up", "{} (process {}) ended {}{}", one.instance, pid, how,
                before ? "" : ": a shutdown was requested, draining");
    } else {
      log::warn("up", "{} (process {}) ended {}; starting it again in {} ms", one.instance, pid,
                how, machine_.delay_of(index).count());
    }
    act(next);
  }

  void act(const supervisor::actions& actions) {
    for (const auto& [kind, index] : actions) {
      auto& one = children_[index];
      switch (kind) {
        case supervisor::what::start:
          one.pid = spawn(one.arguments);
          if (one.pid < 0) {
            ended(index, fmt::format("before it began: {}", std::strerror(errno)));
          } else {
            log::info("up", "{} is process {}", one.instance, one.pid);
          }
          break;
        case supervisor::what::terminate: send(one, SIGTERM); break;
        case supervisor::what::reload: send(one, SIGHUP); break;
        case supervisor::what::kill:
          log::warn("up", "{} (process {}) is killed: its time is up", one.instance, one.pid);
          send(one, SIGKILL);
          break;
      }
    }
  }

  static void send(const child& to, int number) {
    if (to.pid > 0) ::kill(to.pid, number);
  }

  supervisor machine_;
  std::vector<child> children_;
};

// Members in the order of their start, the router first.
std::pair<std::vector<supervisor::role>, std::vector<child>> members(
    const up_options& options, const std::string& directory, const std::string& run_dir) {
  std::vector<supervisor::role> roles;
  std::vector<child> children;
  std::error_code ec;
  const auto add = [&](supervisor::role role, const std::string& service, int count) {
    for (int i = 1; i <= count; ++i) {
      child one;
      one.instance = fmt::format("{}-{}", service, i);
      one.arguments = {fmt::format("{}/pgsled-{}", directory, service),
                       "--router", fmt::format("ipc://{}/router.bus", run_dir),
                       "--instance", one.instance, "--run-dir", run_dir};
      if (role == supervisor::role::router) {
        for (const auto& [flag, file] :
             {std::pair("--config", options.config), std::pair("--users", options.users)}) {
          one.arguments.emplace_back(flag);
          one.arguments.push_back(std::filesystem::absolute(file, ec).string());
        }
      }
      roles.push_back(role);
      children.push_back(std::move(one));
    }
  };
  add(supervisor::role::router, "router", 1);
  add(supervisor::role::pooler, "pooler", options.poolers);
  add(supervisor::role::replicator, "replicator", options.replicators);
  add(supervisor::role::frontend, "frontend", options.frontends);
  return {std::move(roles), std::move(children)};
}

int refuse(const std::string& why) {
  fmt::print(stderr, "pgsled up: {}\n", why);
  return 2;
}

// The port of a suite killed a moment ago is still held until the kernel has ended its frontends.
constexpr std::chrono::milliseconds port_patience{500}, port_pause{50};

// Frontends listen with SO_REUSEPORT and would silently share the port with another suite of the
// same user; nobody else may have it when the first begins. Empty: it is free.
std::string port_problem(const config::general& of) {
  const auto until = steady::now() + port_patience;
  for (;;) {
    const auto bound = net::listen_tcp(of.host, of.port, false, 1);
    if (bound) return {};
    if (steady::now() >= until) return bound.error().message;
    std::this_thread::sleep_for(port_pause);
  }
}

}  // namespace

int up(const up_options& options) {
  const auto checked = config::load(options.config, options.users);
  if (!checked.config) {
    fmt::print(stderr, "{}", config::format(checked.mistakes));
    return refuse("the configuration has mistakes, nothing was started");
  }
  const auto directory = options.binaries.empty() ? own_directory() : options.binaries;
  const auto wanted = options.run_dir.empty() ? default_run_dir() : options.run_dir;
  const auto locked = run_dir::open(wanted);
  if (!locked) {
    const auto& error = locked.error();
    return refuse(error.hint.empty() ? error.message : error.message + ". " + error.hint);
  }
  auto [roles, children] = members(options, directory, locked->path());
  for (const auto& one : children) {
    if (::access(one.arguments[0].c_str(), X_OK) != 0) {
      return refuse(fmt::format("{}: {}", one.arguments[0], std::strerror(errno)));
    }
  }
  if (const auto problem = port_problem(checked.config->general); !problem.empty()) {
    fmt::print(stderr, "pgsled up: {}\n", problem);
    return 1;
  }
  // They are for us, or for one process alone, and not for all that we start.
  for (const char* one : {"NOTIFY_SOCKET", "PGSLED_HTTP", "PGSLED_RELAY", "PGSLED_INSTANCE"}) {
    ::unsetenv(one);
  }
  // Whoever reads our log may go away.
  ::signal(SIGPIPE, SIG_IGN);
  log::start("up", "up");
  log::configure(checked.config->general.log_level, checked.config->general.log_format);
  if (const int removed = locked->remove_stale_sockets(); removed > 0) {
    log::info("up", "{} stale sockets removed from {}", removed, locked->path());
  }
  return driver(supervisor(std::move(roles)), std::move(children)).run();
}

}  // namespace pgsled::cli
