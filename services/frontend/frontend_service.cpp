#include "services/frontend/frontend_service.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "common/log/log.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

class service {
 public:
  explicit service(app::process& process) : process_(process) {
    shared_.bus = process.bus();
    shared_.boot = process.boot();
    shared_.options = process.opts();
    if (!process.opts().curve_dir.empty())
      shared_.curve = app::load_curve(process.opts().curve_dir);
    shared_.on_shutdown_command = [this] { drain(); };
    shared_.metrics_text = [](bool openmetrics) {
      return metrics::process_registry().expose({}, openmetrics);
    };
  }

  int run() {
    shared_.http = process_.http_address();
    bus::peer_options options;
    options.endpoint = shared_.options.router;
    options.instance = shared_.options.instance;
    options.curve = shared_.curve;
    bus::peer::callbacks callbacks;
    callbacks.hello = [this] { return hello(); };
    callbacks.snapshot = [this](byte_span json, std::uint64_t epoch) {
      auto next = snapshot::from_json<snapshot::frontend>(as_text(json));
      snapshot::in_effect said;
      for (const auto& database : next ? next->databases : std::vector<snapshot::database>{}) {
        // No client is served by this link; each worker says it for its own.
        if (!database.fence.empty()) said.drained.push_back(database.fence);
      }
      if (next && workers_.empty() && !draining_) start_workers(std::move(*next));
      peer_->acknowledge(epoch, said.drained.empty() ? std::string() : snapshot::to_json(said));
    };
    callbacks.message = [this](const bus::envelope& message) {
      if (message.header.kind == bus::kind::gather) {
        peer_->tell(bus::kind::gather_answer, as_bytes("{\"rows\":[]}"), message.header.request);
      } else if (message.header.kind == bus::kind::command) {
        drain();
      }
    };
    callbacks.link = [](bool) {};
    peer_ = std::make_unique<bus::peer>(loop_, shared_.bus, options, std::move(callbacks));
    peer_->start();
    loop_.run();
    for (auto& thread : threads_) thread.join();
    return status_;
  }

  // Any thread.
  void drain() {
    loop_.post([this] {
      if (std::exchange(draining_, true)) return;
      peer_->tell(bus::kind::bye, {});
      if (workers_.empty()) loop_.stop();
      for (auto& each : workers_) each->drain();
    });
  }

  // Any thread.
  std::string ready() const {
    if (!started_) return "no configuration from the router yet";
    const auto lacks = [](const auto& each) { return each->lacks_tls(); };
    const bool plain = std::any_of(workers_.begin(), workers_.end(), lacks);
    return plain ? "the certificate for TLS cannot be loaded" : "";
  }

 private:
  void start_workers(snapshot::frontend first) {
    // More threads than that find less to do each time they are woken; but a single one leaves a
    // second processor idle as often as it waits for its turn. On the relay lane the threads that
    // carry what it says use that.
    const auto processors = std::max(1u, std::thread::hardware_concurrency());
    const auto least = first.settings.lane == "relay" ? 1u : std::min(processors, 2u);
    const auto by_processors = std::max(least, processors / 2);
    const auto count = first.settings.workers > 0 ? first.settings.workers : by_processors;
    for (unsigned i = 0; i < count; ++i) {
      workers_.push_back(std::make_unique<worker>(shared_, i, first));
      if (auto listening = workers_.back()->listen(); !listening) {
        log::error("listen", "{}", listening.error().message);
        status_ = 1;
        workers_.clear();
        loop_.stop();
        return;
      }
    }
    for (auto& each : workers_) shared_.workers.push_back(each.get());
    running_ = count;
    for (auto& each : workers_) {
      threads_.emplace_back([this, &each] {
        each->run();
        if (running_.fetch_sub(1) == 1) loop_.post([this] { loop_.stop(); });
      });
    }
    started_ = true;
    log::info("listen", "listening on {}:{} with {} workers", first.settings.host,
              first.settings.port, count);
  }

  std::string hello() const {
    snapshot::hello hello;
    hello.service = "frontend";
    hello.instance = shared_.options.instance;
    hello.version = PGSLED_VERSION;
    hello.pid = ::getpid();
    hello.boot = shared_.boot;
    hello.host = app::host_identity();
    hello.http = process_.http_address();
    return snapshot::to_json(hello);
  }

  app::process& process_;
  process_shared shared_;
  net::reactor loop_;
  std::unique_ptr<bus::peer> peer_;
  std::vector<std::unique_ptr<worker>> workers_;
  std::vector<std::thread> threads_;
  std::atomic<unsigned> running_{0};
  std::atomic<bool> started_{false};
  bool draining_ = false;
  int status_ = 0;
};

}  // namespace

int run_frontend(app::options options) {
  // Few arenas: memory of many small clients is not to be scattered over one arena a thread each.
  ::mallopt(M_ARENA_MAX, 4);
  app::process process(std::move(options));
  service frontend(process);
  return process.run({.run = [&] { return frontend.run(); },
                      .drain = [&] { frontend.drain(); },
                      .reload = {},
                      .ready = [&] { return frontend.ready(); },
                      .metrics = {}});
}

}  // namespace pgsled::frontend
