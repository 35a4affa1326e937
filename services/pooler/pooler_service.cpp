#include "services/pooler/pooler_service.hpp"

#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <charconv>
#include <filesystem>

#include "common/log/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/pooler/lanes/lease_server.hpp"
#include "services/pooler/lanes/relay_server.hpp"
#include "services/pooler/pools/lender.hpp"
#include "services/pooler/views.hpp"

namespace pgsled::pooler {
namespace {

namespace json = boost::json;
constexpr const char* component = "pooler";
constexpr auto drain_poll = std::chrono::milliseconds(20);
constexpr auto fence_poll = std::chrono::milliseconds(20);
// How long one that drains and has nothing left waits for the router to take its shares back: else
// the others get them only when it has been silent for long enough.
constexpr auto looks_interval = std::chrono::seconds(1);
constexpr auto farewell = std::chrono::milliseconds(500);

std::uint64_t number_of(const std::string& hex) {
  std::uint64_t value = 0;
  std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
  return value;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= list.size()) {
    const auto end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

struct pooler_service::state {
  explicit state(app::process& p)
      : process(p),
        lend(reactor, meter, p.opts().instance, number_of(p.boot()), p.opts().server_sockets),
        leases(reactor, lend, path_of(p.opts(), ".lease")) {}

  static std::string path_of(const app::options& o, const char* ending) {
    return (std::filesystem::absolute(o.run_dir) / (o.instance + ending)).lexically_normal();
  }

  app::process& process;
  net::reactor reactor;
  probe meter;
  lender lend;
  lease_server leases;
  std::unique_ptr<relay_server> relay;
  std::unique_ptr<bus::peer> router;
  bus::curve_keys curve, relay_curve;
  std::vector<std::string> known_clients;  // from --curve-dir
  std::string relay_endpoint;
  std::chrono::milliseconds shutdown_timeout{60'000};
  net::time_point drain_until;
  net::time_point farewell_until;
  bool draining = false, gave_up_shares = false;
  snapshot::in_effect effect;              // as told last
  std::vector<std::string> fences;
  net::reactor::timer_id fence_timer = 0;
  std::atomic<bool> configured{false}, linked{false};

  int run() {
    const auto& o = process.opts();
    try {
      curve = app::load_curve(o.curve_dir);
      if (!relay_is_local()) {
        // The pooler's own pair serves both ends; the router's secret has no place here.
        relay_curve = {curve.public_key, curve.secret_key, {}};
        known_clients = app::load_curve_clients(o.curve_dir);
      }
    } catch (const std::exception& e) {
      log::error(component, "{}", e.what());
      return 2;
    }
    if (auto started = leases.start(); !started) {
      log::error(component, "{}", started.error().message);
      return 1;
    }
    if (!open_relay()) return 1;
    bus::peer_options to;
    to.endpoint = o.router;
    to.instance = o.instance;
    to.curve = curve;
    bus::peer::callbacks calls;
    calls.hello = [this] { return snapshot::to_json(hello()); };
    calls.snapshot = [this](byte_span text, std::uint64_t epoch) { apply(text, epoch); };
    calls.message = [this](const bus::envelope& got) { receive(got); };
    calls.link = [this](bool up) {
      linked = up;
      if (up) log::info(component, "the router is here");
      if (!up) log::warn(component, "the router is not heard; what is warm goes on");
    };
    router = std::make_unique<bus::peer>(reactor, process.bus(), to, calls);
    router->start();
    net::reactor::wake_patiently();
    count_looks();
    reactor.run();
    router.reset();
    relay.reset();
    return 0;
  }

  bool relay_is_local() const {
    const auto& endpoint = process.opts().relay;
    return endpoint.empty() || endpoint.starts_with("ipc:");
  }

  bool open_relay() {
    const auto& o = process.opts();
    const auto endpoint = o.relay.empty() ? "ipc://" + path_of(o, ".relay") : o.relay;
    relay = std::make_unique<relay_server>(reactor, lend, process.bus(), endpoint, relay_curve);
    relay->allow(known_clients);
    auto bound = relay->start();
    if (bound) relay_endpoint = std::move(*bound);
    if (!bound) log::error(component, "relay lane: {}", bound.error().message);
    return bound.has_value();
  }

  snapshot::hello hello() const {
    const auto& o = process.opts();
    snapshot::hello h;
    h.service = "pooler";
    h.instance = o.instance;
    h.version = PGSLED_VERSION;
    h.pid = ::getpid();
    h.boot = process.boot();
    h.host = app::host_identity();
    h.http = process.http_address();
    h.lease_path = path_of(o, ".lease");
    h.relay = relay_endpoint;
    h.relay_key = relay_curve.public_key;
    h.databases = split(o.databases);
    h.budgets = lend.held();
    return h;
  }

  void apply(byte_span text, std::uint64_t epoch) {
    auto next = snapshot::from_json<snapshot::pooler>(as_text(text));
    if (!next) return log::error(component, "unreadable snapshot: {}", next.error().message);
    log::configure(next->settings.log_level, next->settings.log_format);
    shutdown_timeout = std::chrono::milliseconds(next->settings.shutdown_timeout);
    auto keys = next->relay_client_keys;
    keys.insert(keys.end(), known_clients.begin(), known_clients.end());
    relay->allow(keys);
    reactor.look_before_sleep(std::chrono::microseconds(next->settings.busy_poll));
    reactor.cancel(fence_timer);
    fences = next->fences;
    lend.apply(*next, [this, epoch](lender::counts over) {
      if (!router) return;
      gave_up_shares = draining && over.empty();
      effect.over = std::move(over);
      effect.drained.clear();
      acknowledge(epoch);
    });
    configured = true;
    log::info(component, "epoch {}: {} pools", epoch, next->pools.size());
  }

  // Says again what is in effect when nobody is left behind a fence.
  void acknowledge(std::uint64_t epoch) {
    reactor.cancel(fence_timer);
    if (lend.expelled()) effect.drained = fences;
    const bool nothing = effect.over.empty() && effect.drained.empty();
    router->acknowledge(epoch, nothing ? std::string() : snapshot::to_json(effect));
    if (effect.drained.size() == fences.size()) return;
    fence_timer = reactor.after(fence_poll, [this, epoch] { acknowledge(epoch); });
  }

  void count_looks() {
    meter.busy_polls.set(reactor.looks().tried());
    meter.busy_polls_in_vain.set(reactor.looks().tried_in_vain());
    reactor.after(looks_interval, [this] { count_looks(); });
  }

  void receive(const bus::envelope& got) {
    if (got.header.kind != bus::kind::gather && got.header.kind != bus::kind::command) return;
    boost::system::error_code ec;
    const auto text = as_text(got.payload);
    const auto parsed = json::parse({text.data(), text.size()}, ec);
    const auto* object = ec ? nullptr : parsed.if_object();
    const auto text_of = [&](const char* key) {
      const auto* value = object == nullptr ? nullptr : object->if_contains(key);
      return value != nullptr && value->is_string() ? std::string(value->get_string())
                                                    : std::string();
    };
    if (got.header.kind == bus::kind::gather) {
      const auto* open = object == nullptr ? nullptr : object->if_contains("openmetrics");
      const bool openmetrics = open != nullptr && open->is_bool() && open->get_bool();
      const auto answer = gather(text_of("what"), openmetrics);
      router->tell(bus::kind::gather_answer, as_bytes(answer), got.header.request);
      return;
    }
    if (const auto command = text_of("command"); command == "shutdown") {
      drain();
    } else {
      log::warn(component, "unknown command \"{}\"", command);
    }
  }

  std::string gather(const std::string& what, bool openmetrics) const {
    if (what == "metrics") {
      const auto text = metrics::process_registry().expose({}, openmetrics);
      return json::serialize(json::object{{"text", text}});
    }
    if (what == "ready") {
      const json::array rows{json::object{{"missing", missing()}}};
      return json::serialize(json::object{{"rows", rows}});
    }
    return view(lend, what);
  }

  // Any thread.
  std::string missing() const {
    if (configured) return {};
    return linked ? "no configuration yet" : "the router is not there";
  }

  void drain() {
    if (std::exchange(draining, true)) return;
    log::info(component, "draining");
    if (router) router->tell(bus::kind::bye, {});
    lend.drain();
    farewell_until = net::clock::now() + (linked ? farewell : std::chrono::milliseconds(0));
    drain_until = net::clock::now() + shutdown_timeout;
    watch_drain();
  }

  void watch_drain() {
    const auto now = net::clock::now();
    const bool farewell_owed = !gave_up_shares && now < farewell_until;
    if ((!lend.empty() || farewell_owed) && now < drain_until) {
      reactor.after(drain_poll, [this] { watch_drain(); });
      return;
    }
    if (!lend.empty()) log::warn(component, "not every lease came back in time");
    reactor.after(drain_poll, [this] { reactor.stop(); });  // what was just said leaves
  }
};

pooler_service::pooler_service(app::process& p) : state_(std::make_unique<state>(p)) {}
pooler_service::~pooler_service() = default;

app::hooks pooler_service::hooks() {
  app::hooks h;
  auto* s = state_.get();
  h.run = [s] { return s->run(); };
  h.drain = [s] { s->reactor.post([s] { s->drain(); }); };
  h.ready = [s] { return s->missing(); };
  return h;
}

}  // namespace pgsled::pooler
