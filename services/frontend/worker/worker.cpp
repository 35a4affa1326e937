#include "services/frontend/worker/worker.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <set>

#include "common/log/log.hpp"
#include "common/net/accept_pause.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/worker/gather.hpp"
#include "services/frontend/leases/relay_line.hpp"
#include "services/frontend/shards/transaction.hpp"

namespace pgsled::frontend {

namespace {
constexpr auto tick_interval = std::chrono::milliseconds(20);
constexpr std::uint32_t max_slots = 1u << 20;  // bits of the slot in a cancel key
constexpr int accepts_per_turn = 64;
}  // namespace

class worker::listener final : public net::watcher {
 public:
  listener(worker& w, net::unique_fd fd, bool local)
      : worker_(w), fd_(std::move(fd)), local_(local) {
    worker_.loop().add(fd_.get(), EPOLLIN, this);
  }
  ~listener() { worker_.loop().watch(fd_.get(), 0, this); }
  void on_events(std::uint32_t) override {
    for (int i = 0; i < accepts_per_turn; ++i) {
      net::unique_fd accepted(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!accepted) {
        if (errno == EMFILE || errno == ENFILE) rest();
        break;
      }
      if (local_) {
        worker_.accepted_local(std::move(accepted));
      } else {
        worker_.accepted(std::move(accepted), false);
      }
    }
    worker_.run_scheduled();
  }

 private:
  void rest() {
    constexpr std::chrono::seconds between_complaints{1};
    constexpr std::chrono::milliseconds a_while{100};
    const auto now = worker_.loop().now();
    if (now - complained_at_ >= between_complaints) {
      complained_at_ = now;
      log::error("listen", "out of file descriptors; raise the limit of open files");
    }
    pause_.rest(fd_.get(), a_while);
  }

  worker& worker_;
  net::unique_fd fd_;
  bool local_;
  net::accept_pause pause_{worker_.loop(), *this};
  net::time_point complained_at_{};
};

worker::worker(process_shared& shared, unsigned number, snapshot::frontend first)
    : shared_(shared),
      number_(number),
      instance_(shared.options.instance + "." + std::to_string(number)),
      snapshot_(std::move(first)),
      read_buffer_(new std::uint8_t[read_buffer_size]),
      message_buffer_(new std::uint8_t[lease::max_message_bytes]) {
  // Until its own welcome a worker has no number for cancel keys and lets nobody in.
  snapshot_.holder = 0;
  series_ = probe_.publish(metrics::process_registry(), std::to_string(number));
  bus::peer_options options;
  options.endpoint = shared.options.router;
  options.instance = instance_;
  options.curve = shared.curve;
  bus::peer::callbacks callbacks;
  callbacks.hello = [this] { return hello(); };
  callbacks.snapshot = [this](byte_span json, std::uint64_t epoch) {
    auto next = snapshot::from_json<snapshot::frontend>(as_text(json));
    if (!next) {
      log::error("config", "the router's snapshot cannot be read: {}", next.error().message);
      return;
    }
    next->epoch = epoch;
    apply(std::move(*next));
    acknowledge();
    run_scheduled();
  };
  callbacks.message = [this](const bus::envelope& message) {
    from_router(message);
    run_scheduled();
  };
  callbacks.link = [](bool up) {
    log::info("router", "{}", up ? "router is there" : "router is not heard");
  };
  peer_ = std::make_unique<bus::peer>(loop_, shared.bus, options, std::move(callbacks));
}

worker::~worker() {
  finishing_.clear();
  leaving_splits_.clear();
  split_lines_.clear();
  lines_.clear();
  clients_.clear();
}

result<bool> worker::listen() {
  auto bound = net::listen_tcp(snapshot_.settings.host, snapshot_.settings.port, true, 4096);
  if (!bound) return tl::unexpected<pg_error>(bound.error());
  listeners_.push_back(std::make_unique<listener>(*this, std::move(*bound), false));
  if (number_ == 0 && !snapshot_.settings.unix_socket_dir.empty()) return listen_locally();
  return true;
}

// The Unix socket has room for one frontend; another of this machine takes it over when that has
// ended. False: not yet.
result<bool> worker::listen_locally() {
  const auto& s = snapshot_.settings;
  const auto path = s.unix_socket_dir + "/.s.PGSQL." + std::to_string(s.port);
  auto local = net::listen_unix(path, SOCK_STREAM, 0777);
  wants_local_ = !local && local.error().sqlstate == "55006";
  if (wants_local_) return false;
  if (!local) return tl::unexpected<pg_error>(local.error());
  listeners_.push_back(std::make_unique<listener>(*this, std::move(*local), true));
  return true;
}

void worker::run() {
  load_tls();
  peer_->start();
  std::function<void()> again = [this, &again] {
    tick();
    run_scheduled();
    loop_.after(tick_interval, again);
  };
  loop_.after(tick_interval, again);
  net::reactor::wake_patiently();
  loop_.run();
}

void worker::drain() {
  loop_.post([this] {
    if (draining_) return;
    draining_ = true;
    drain_deadline_ = loop_.now() + std::chrono::milliseconds(settings().shutdown_timeout);
    listeners_.clear();
    peer_->tell(bus::kind::bye, {});
    for (const auto& [key, each] : clients_) each->drain();
    run_scheduled();
    check_drained();
  });
}

void worker::check_drained() {
  if (!draining_) return;
  const bool busy = !clients_.empty() || !finishing_.empty();
  if (busy && loop_.now() < drain_deadline_) return;
  const pg_error down{"57P01", "terminating connection due to administrator command", {}, {}};
  for (const auto& [key, each] : clients_) each->end(down);
  run_scheduled();
  for (const auto& [id, pool] : pools_) pool->withdraw();
  run_scheduled();
  // One more turn, so that what was just written to poolers leaves.
  loop_.after(std::chrono::milliseconds(50), [this] { loop_.stop(); });
  drain_deadline_ = net::time_point::max();
}

void worker::schedule(std::function<void()> task) { scheduled_.push_back(std::move(task)); }

void worker::run_scheduled() {
  if (running_scheduled_) return;
  running_scheduled_ = true;
  // Tasks may schedule more.
  for (std::size_t i = 0; i < scheduled_.size(); ++i) {
    auto task = std::move(scheduled_[i]);
    task();
  }
  scheduled_.clear();
  running_scheduled_ = false;
}

void worker::carry_on(std::unique_ptr<shard_transaction> commit) {
  finishing_.push_back(std::move(commit));
}

void worker::tick() {
  const auto now = loop_.now();
  // First, while nothing that is scheduled names a line.
  std::erase_if(forgotten_, [this](const auto& pooler) {
    return !has_leases_of(pooler) && lines_.erase(pooler) > 0;
  });
  std::erase_if(leaving_splits_, [](const auto& line) { return line->copies() == 0; });
  gate_.tick(now);
  probe_.busy_polls.set(loop_.looks().tried());
  probe_.busy_polls_in_vain.set(loop_.looks().tried_in_vain());
  if (!finishing_.empty()) std::erase_if(finishing_, [](const auto& one) { return one->over(); });
  for (const auto& [id, pool] : pools_) pool->tick(now);
  std::erase_if(withdrawn_pools_, [](const auto& pool) { return pool->leases() == 0; });
  // Time-outs of clients are seconds: a tenth of them a tick is often enough.
  static constexpr std::size_t share = 10;
  std::size_t index = 0;
  tick_number_ = (tick_number_ + 1) % share;
  for (const auto& [key, each] : clients_) {
    if (index++ % share == tick_number_ && each->now_in() != client::state::closed) {
      each->check_timeouts(now);
      each->look_at_fence();
      each->snapshot_changed();
    }
  }
  if (wants_local_ && !draining_ && now >= next_local_try_) {
    next_local_try_ = now + std::chrono::seconds(1);
    const auto listening = listen_locally();
    if (!listening) log::error("listen", "{}", listening.error().message);
  }
  check_drained();
}

// --- clients

void worker::accepted(net::unique_fd fd, bool local) {
  const auto& s = snapshot_.settings;
  net::apply(fd.get(), net::tcp_options{s.tcp_keepalive, s.tcp_time_s, s.tcp_interval_s,
                                        s.tcp_retries, s.tcp_user_timeout_ms});
  probe_.clients_accepted.add();
  auto made = std::make_unique<client>(*this, std::move(fd), local);
  auto* fresh = made.get();
  clients_[fresh] = std::move(made);
  probe_.clients.add();
  const auto total = shared_.clients.fetch_add(1) + 1;
  if (s.max_client_conn > 0 && total > static_cast<std::int64_t>(s.max_client_conn)) {
    probe_.clients_refused.add();
    fresh->refuse_at_startup(
        pg_error{"53300",
                 "sorry, too many clients already",
                 "max_client_conn is " + std::to_string(s.max_client_conn) + ".",
                 {}});
  }
}

// A Unix socket cannot be listened on by each worker, as the TCP port is: the one that does deals
// its clients out.
void worker::accepted_local(net::unique_fd fd) {
  auto* to = shared_.workers[next_local_++ % shared_.workers.size()];
  if (to == this) return accepted(std::move(fd), true);
  to->loop_.post([to, kept = std::make_shared<net::unique_fd>(std::move(fd))] {
    if (to->draining_) return;  // closed, as what nobody has accepted yet
    to->accepted(std::move(*kept), true);
    to->run_scheduled();
  });
}

std::uint32_t worker::add_slot(client* added) {
  if (!free_slots_.empty()) {
    const auto slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = added;
    return slot;
  }
  if (slots_.size() >= max_slots) return ~0u;
  slots_.push_back(added);
  return static_cast<std::uint32_t>(slots_.size() - 1);
}

void worker::remove_slot(std::uint32_t slot) {
  if (slot >= slots_.size()) return;
  slots_[slot] = nullptr;
  free_slots_.push_back(slot);
}

client* worker::client_of(std::uint32_t pid) const {
  const auto slot = pid & (max_slots - 1);
  if (pid >> 20 != snapshot_.holder || slot >= slots_.size()) return nullptr;
  return slots_[slot];
}

void worker::cancel(std::uint32_t pid, std::string_view secret, bool forwarded) {
  if (pid >> 20 == snapshot_.holder) {
    auto* named = client_of(pid);
    if (named != nullptr && named->matches_secret(secret)) named->cancel();
    return;
  }
  if (forwarded) return;
  std::string payload(4, '\0');
  store_le(payload.data(), pid);
  payload.append(secret);
  peer_->tell(bus::kind::cancel, as_bytes(payload));
}

void worker::client_gone(client* gone) {
  remove_slot(gone->slot());
  probe_.clients.subtract();
  shared_.clients.fetch_sub(1);
  // Whoever is on the stack may still use it.
  schedule([this, gone] {
    clients_.erase(gone);
    check_drained();
  });
}

// --- the router

std::string worker::hello() const {
  snapshot::hello hello;
  hello.service = "frontend";
  hello.instance = instance_;
  hello.version = PGSLED_VERSION;
  hello.pid = ::getpid();
  hello.boot = shared_.boot;
  hello.host = app::host_identity();
  hello.http = shared_.http;
  hello.holder = snapshot_.holder;
  hello.relay_key = shared_.curve.public_key;
  return snapshot::to_json(hello);
}

// {"command":"deadlock","client":pid of a cancel key,"began":of its transaction}
void worker::end_deadlock(std::string_view json) {
  boost::json::error_code ec;
  const auto parsed = boost::json::parse(json, ec);
  if (ec || !parsed.is_object()) return;
  const auto* who = parsed.as_object().if_contains("client");
  const auto* began = parsed.as_object().if_contains("began");
  if (who == nullptr || began == nullptr || !who->is_int64() || !began->is_int64()) return;
  if (auto* named = client_of(static_cast<std::uint32_t>(who->as_int64()))) {
    named->end_deadlock(static_cast<std::uint32_t>(began->as_int64()));
  }
  run_scheduled();
}

void worker::from_router(const bus::envelope& message) {
  switch (message.header.kind) {
    case bus::kind::cancel:
      if (message.payload.size() >= 8) {
        cancel(load_le<std::uint32_t>(message.payload.data()), as_text(message.payload.subspan(4)),
               true);
      }
      break;
    case bus::kind::gather: {
      const auto answer = answer_gather(*this, as_text(message.payload));
      peer_->tell(bus::kind::gather_answer, as_bytes(answer), message.header.request);
      break;
    }
    case bus::kind::command:
      if (as_text(message.payload).find("\"deadlock\"") != std::string_view::npos) {
        end_deadlock(as_text(message.payload));
        break;
      }
      if (as_text(message.payload).find("\"shutdown\"") != std::string_view::npos &&
          shared_.on_shutdown_command) {
        shared_.on_shutdown_command();
      }
      break;
    default:
      break;
  }
}

}  // namespace pgsled::frontend
