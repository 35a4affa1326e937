#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "common/app/app.hpp"
#include "common/app/notifier.hpp"
#include "common/app/process_metrics.hpp"
#include "common/http/server.hpp"
#include "common/log/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/net/socket.hpp"

namespace pgsled::app {
namespace {

constexpr rlim_t enough_descriptors = 16'384;
// One that is not ready says in its log what it waits for: after this time, then half as often each
// time. A service manager hears of it when it has changed.
constexpr std::chrono::milliseconds first_word{2000}, longest_pause{60'000};
constexpr std::chrono::milliseconds manager_pause{100};  // between two looks, where there is one

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, s);
  return set;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < enough_descriptors)
    log::warn("app", "only {} open files are allowed, too few for many connections (ulimit -Hn)",
              limit.rlim_max);
}

std::string_view address_of_manager() {
  const char* address = std::getenv("NOTIFY_SOCKET");
  return address == nullptr ? std::string_view() : std::string_view(address);
}

void make_run_dir(const std::string& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) return;
  if (const auto parent = std::filesystem::path(path).parent_path(); !parent.empty())
    std::filesystem::create_directories(parent, ec);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    throw std::runtime_error(fmt::format("could not create the run directory \"{}\": {}", path,
                                         std::strerror(errno)));
}

}  // namespace

struct process::state {
  options opts;
  std::string boot = random_id();
  std::shared_ptr<bus::context> zmq;
  std::string http_address;
  std::vector<std::shared_ptr<void>> metrics;
  net::unique_fd signals, quit;
  std::thread signal_thread;
  std::shared_ptr<notifier> manager = std::make_shared<notifier>(address_of_manager());
  app::hooks hooks;
  std::unique_ptr<http::server> http = std::make_unique<http::server>();

  http::response answer(const http::request& asked) const {
    if (asked.path == "/healthz") return {200, "text/plain; charset=utf-8", "ok\n"};
    if (asked.path == "/readyz") {
      const std::string missing = hooks.ready ? hooks.ready() : "";
      if (missing.empty()) return {200, "text/plain; charset=utf-8", "ready\n"};
      return {503, "text/plain; charset=utf-8", missing + "\n"};
    }
    if (asked.path == "/metrics") {
      const bool open = asked.accept.find("application/openmetrics-text") != std::string::npos;
      return {200,
              open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                   : "text/plain; version=0.0.4; charset=utf-8",
              hooks.metrics ? hooks.metrics(open)
                            : metrics::process_registry().expose(
                                  {{"service", opts.service}, {"instance", opts.instance}}, open)};
    }
    return {404, "text/plain; charset=utf-8", "there are /metrics, /healthz and /readyz\n"};
  }

  struct wait_for_ready {
    std::string told;  // to the service manager
    std::chrono::milliseconds pause = first_word;
    std::chrono::steady_clock::time_point next_word = std::chrono::steady_clock::now() + pause;
  };

  bool still_waiting(wait_for_ready& so_far) const {
    const auto missing = hooks.ready ? hooks.ready() : std::string();
    if (missing.empty()) {
      manager->ready("ready");
      return false;
    }
    if (missing != so_far.told) manager->starting("waits: " + missing);
    so_far.told = missing;
    if (std::chrono::steady_clock::now() >= so_far.next_word) {
      log::info("app", "waiting: {} ({})", missing, opts.router);
      so_far.pause = std::min(2 * so_far.pause, longest_pause);
      so_far.next_word += so_far.pause;
    }
    return true;
  }

  int patience(const wait_for_ready& so_far) const {
    if (manager->wanted()) return static_cast<int>(manager_pause.count());
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        so_far.next_word - std::chrono::steady_clock::now());
    return static_cast<int>(std::max<std::int64_t>(0, left.count()));
  }

  void watch_signals() {
    pthread_setname_np(pthread_self(), "signals");
    bool draining = false, waiting = true;
    wait_for_ready so_far;
    for (;;) {
      if (waiting && !draining) waiting = still_waiting(so_far);
      pollfd waits[2] = {{signals.get(), POLLIN, 0}, {quit.get(), POLLIN, 0}};
      const int bound = waiting && !draining ? patience(so_far) : -1;
      if (::poll(waits, 2, bound) < 0 && errno != EINTR) return;
      if (waits[1].revents != 0) return;
      signalfd_siginfo got{};
      if (::read(signals.get(), &got, sizeof got) != sizeof got) continue;
      if (got.ssi_signo == SIGHUP) {
        if (hooks.reload) reload();
        continue;
      }
      if (draining) ::_exit(128 + static_cast<int>(got.ssi_signo));
      draining = true;
      log::info("app", "draining; a second signal ends the process at once");
      manager->stopping();
      if (hooks.drain) hooks.drain();
    }
  }

  void reload() const {
    manager->reloading();
    hooks.reload([manager = manager](const std::string& said) { manager->ready(said); });
  }

  void stop_signals() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(quit.get(), &one, sizeof one);
    if (signal_thread.joinable()) signal_thread.join();
  }
};

process::process(options given) : state_(std::make_unique<state>()) {
  state& s = *state_;
  s.opts = std::move(given);
  log::start(s.opts.service, s.opts.instance);
  log::configure(s.opts.log_level, s.opts.log_format);
  ::signal(SIGPIPE, SIG_IGN);
  const sigset_t mask = handled_signals();
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);  // before any thread, so that all inherit it
  s.signals.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  s.quit.reset(::eventfd(0, EFD_CLOEXEC));
  if (!s.signals || !s.quit) throw std::runtime_error("no signalfd");
  raise_descriptor_limit();
  make_run_dir(s.opts.run_dir);
  s.zmq = bus::make_context();
  s.metrics = register_process_metrics();
}

process::~process() {
  if (state_) state_->stop_signals();
}

int process::run(hooks given) {
  state& s = *state_;
  s.hooks = std::move(given);
  auto serving = s.http->start(s.opts.http, [&s](const http::request& r) { return s.answer(r); });
  if (!serving) {
    log::error("app", "{}", serving.error().message);
    return 1;
  }
  s.http_address = *serving;
  s.signal_thread = std::thread([&s] { s.watch_signals(); });
  log::info("app", "pgsled-{} {} has begun, HTTP on {}", s.opts.service, PGSLED_VERSION,
            s.http_address);
  int status = 1;
  try {
    status = s.hooks.run();
  } catch (const std::exception& e) {
    log::error("app", "{}", e.what());
  }
  // The hooks point into the service, which is destroyed before this process is: nobody may call
  // them any more once run() has returned.
  s.http.reset();
  s.stop_signals();
  s.hooks = {};
  log::info("app", "ended with status {}", status);
  return status;
}

const options& process::opts() const { return state_->opts; }
const std::string& process::boot() const { return state_->boot; }
std::string process::http_address() const { return state_->http_address; }
std::shared_ptr<bus::context> process::bus() const { return state_->zmq; }

}  // namespace pgsled::app
