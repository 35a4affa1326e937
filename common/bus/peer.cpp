#include "common/bus/peer.hpp"

#include <zmq.h>

#include <boost/json.hpp>
#include <deque>
#include <random>
#include <stdexcept>
#include <unordered_map>

#include "common/bus/channel.hpp"
#include "common/bus/error_payload.hpp"
#include "common/log/log.hpp"

namespace pgsled::bus {
namespace {

constexpr std::size_t max_asks = 4096;
constexpr std::size_t max_ask_bytes = 64u << 20;  // of payloads kept for asks under way
constexpr int unheard_heartbeats = 3;
constexpr std::chrono::milliseconds hello_pause{100};

bool is_answer(kind k) {
  return k == kind::plan_answer || k == kind::admin_answer || k == kind::gather_answer ||
         k == kind::command_answer || k == kind::move_answer || k == kind::error;
}
bool is_ask(kind k) {
  return k == kind::plan_request || k == kind::admin_request || k == kind::gather ||
         k == kind::command || k == kind::move_request;
}

}  // namespace

struct peer::state : std::enable_shared_from_this<peer::state> {
  struct pending {
    bus::kind kind{};
    std::string payload;
    bool sent = false;
    net::time_point until;
    net::reactor::timer_id timer = 0;
    answer then;
  };

  net::reactor& loop;
  std::shared_ptr<context> zmq;
  peer_options options;
  callbacks up;
  std::shared_ptr<channel> wire;
  std::unordered_map<std::uint64_t, pending> asks;
  std::size_t ask_bytes = 0;
  std::uint64_t next_request;
  std::uint64_t router_boot = 0;
  std::uint64_t acknowledged = 0;
  std::string ack_payload;
  bool ack_owed = false;
  bool welcomed = false, stopped = false, refused = false;
  net::time_point heard{}, hello_said{};
  std::int64_t present_from = 0;   // ms: when a heartbeat was sent that has been answered
  net::reactor::timer_id tick_timer = 0;

  state(net::reactor& l, std::shared_ptr<context> c, peer_options o, callbacks u)
      : loop(l), zmq(std::move(c)), options(std::move(o)), up(std::move(u)) {
    // Random, so that a late answer to a predecessor of the same name finds no ask of ours.
    std::random_device random;
    next_request = (std::uint64_t{random()} << 32) | 1;
  }

  void start() {
    if (const auto problem = endpoint_problem(options.endpoint, options.curve); !problem.empty())
      throw std::runtime_error(problem);
    open();
    heard = loop.now();
    tick();
  }

  void open() {
    if (wire) wire->close();
    refused = false;
    wire = channel::make(loop, zmq, ZMQ_DEALER, [this](auto frames) { receive(frames); });
    wire->count_as(role::peer);
    wire->set_common(options.endpoint, options.high_water_mark);
    wire->set(ZMQ_ROUTING_ID, options.instance);
    wire->set(ZMQ_IMMEDIATE, 1);  // nothing queues for a router that is not there
    wire->set_curve_client(options.curve);
    wire->monitor([this](channel::connection now) {
      if (now == channel::connection::made) say_hello(true);
      if (now == channel::connection::refused) refused = true;
    });
    if (zmq_connect(wire->socket(), options.endpoint.c_str()) != 0)
      throw std::runtime_error(fmt::format("could not connect to \"{}\": {}", options.endpoint,
                                           zmq_strerror(zmq_errno())));
    wire->watch();
  }

  void stop() {
    stopped = true;
    loop.cancel(tick_timer);
    for (auto& [id, ask] : asks) loop.cancel(ask.timer);
    asks.clear();
    if (wire) wire->close();
  }

  int send(bus::kind k, byte_span payload, std::uint64_t request, std::uint32_t deadline_ms = 0) {
    if (!wire) return ENOTCONN;
    header head;
    head.kind = k;
    head.request = request;
    head.epoch = acknowledged;
    head.deadline_ms = deadline_ms;
    return wire->send({}, head, payload);
  }

  void say_hello(bool at_once) {
    if (!at_once && loop.now() - hello_said < hello_pause) return;
    const std::string json = up.hello ? up.hello() : "{}";
    if (send(kind::hello, as_bytes(json), 0) == 0) hello_said = loop.now();
  }

  void tick() {
    std::weak_ptr<state> weak = weak_from_this();
    // A hello may be refused by a connection that is not quite up: it is soon said again.
    const std::chrono::milliseconds pause =
        welcomed ? options.heartbeat : std::min(options.heartbeat, hello_pause);
    tick_timer = loop.after(pause, [weak] {
      if (const auto self = weak.lock()) self->tick();
    });
    if (welcomed && loop.now() - heard >= unheard_heartbeats * options.heartbeat) {
      log::warn("bus", "the router at {} has not been heard for {} ms", options.endpoint,
                (unheard_heartbeats * options.heartbeat).count());
      lose();
      if (stopped) return;
    }
    if (refused) open();
    if (!welcomed) return say_hello(false);
    beat();
    settle();
  }

  // The router repeats the number: what it answers says when it was asked, not when it was read.
  void beat() {
    const auto now = net::clock::now().time_since_epoch();
    send(kind::heartbeat, {},
         static_cast<std::uint64_t>(
             std::chrono::duration_cast<std::chrono::milliseconds>(now).count()));
  }

  void lose() {
    welcomed = false;
    if (up.link) up.link(false);
  }

  // What could not be sent when it was said.
  void settle() {
    if (!welcomed) return;
    if (ack_owed && send(kind::ack, as_bytes(ack_payload), 0) == 0) ack_owed = false;
    for (auto& [id, ask] : asks)
      if (!ask.sent && !transmit(id, ask)) break;
  }

  bool transmit(std::uint64_t id, pending& ask) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(ask.until - loop.now());
    const auto ms = std::max<std::int64_t>(left.count(), 1);
    ask.sent = send(ask.kind, as_bytes(ask.payload), id, static_cast<std::uint32_t>(ms)) == 0;
    return ask.sent;
  }

  void receive(std::span<const byte_span> frames) {
    if (frames.size() != 1) return wire->note_malformed("the router");
    const auto got = decode(frames[0]);
    if (!got) return wire->note_malformed("the router");
    const auto keep = shared_from_this();
    heard = loop.now();
    const header& head = got->header;
    switch (head.kind) {
      case kind::welcome: return welcome(*got);
      case kind::heartbeat:
        // Another start of the router knows nothing of us; neither does one that we had given up.
        if (!welcomed || head.trace != router_boot) return say_hello(false);
        present_from = std::max(present_from, static_cast<std::int64_t>(head.request));
        return;
      case kind::config:
        if (welcomed && up.snapshot) up.snapshot(got->payload, head.epoch);
        return;
      default: break;
    }
    if (!known(head.kind)) {
      const std::string why = error_json(unknown_kind(head.kind));
      if (head.request != 0) send(kind::error, as_bytes(why), head.request);
      return;
    }
    if (is_answer(head.kind) && finish(head.request, *got)) return;
    if (up.message) up.message(*got);
  }

  void welcome(const envelope& got) {
    const bool another = router_boot != 0 && got.header.trace != router_boot;
    const bool news = !welcomed;
    router_boot = got.header.trace;
    welcomed = true;
    if (another || news) present_from = 0;
    if (another) forget_sent();
    if (stopped) return;
    if (news && up.link) up.link(true);
    if (!stopped && up.snapshot) up.snapshot(got.payload, got.header.epoch);
    if (!stopped) beat();
    if (!stopped) settle();
  }

  // The old router took these with it. Plan requests change nothing and are asked again; of the
  // others nobody knows whether they were carried out.
  void forget_sent() {
    std::vector<std::uint64_t> lost;
    for (auto& [id, ask] : asks) {
      if (!ask.sent) continue;
      if (ask.kind == kind::plan_request) ask.sent = false;
      else lost.push_back(id);
    }
    for (const auto id : lost)
      fail_ask(id, failure("57P03", "the router was restarted before it answered").value());
  }

  bool take(std::uint64_t id, pending& out) {
    const auto found = asks.find(id);
    if (found == asks.end()) return false;
    out = std::move(found->second);
    asks.erase(found);
    ask_bytes -= out.payload.size();
    loop.cancel(out.timer);
    return true;
  }

  bool finish(std::uint64_t id, const envelope& got) {
    pending ask;
    if (!take(id, ask)) return false;
    if (got.header.kind == kind::error)
      ask.then(tl::unexpected(error_from_json(got.payload)));
    else
      ask.then(got);
    return true;
  }

  void fail_ask(std::uint64_t id, pg_error why) {
    pending ask;
    if (take(id, ask)) ask.then(tl::unexpected(std::move(why)));
  }

  void ask(bus::kind k, byte_span payload, std::chrono::milliseconds deadline, answer then) {
    PGSLED_ASSERT(is_ask(k));
    if (asks.size() >= max_asks || ask_bytes + payload.size() > max_ask_bytes) {
      loop.defer([then = std::move(then)] {
        then(failure("53400", "too many requests to the router are under way",
                     "The router is overloaded or cannot be reached."));
      });
      return;
    }
    const std::uint64_t id = next_request++;
    std::weak_ptr<state> weak = weak_from_this();
    pending made;
    made.kind = k;
    made.payload = as_text(payload);
    made.until = loop.now() + deadline;
    made.then = std::move(then);
    made.timer = loop.at(made.until, [weak, id] {
      if (const auto self = weak.lock()) self->too_late(id);
    });
    ask_bytes += payload.size();
    pending& kept = asks.emplace(id, std::move(made)).first->second;
    if (welcomed) transmit(id, kept);
  }

  void too_late(std::uint64_t id) {
    fail_ask(id, failure("57P03", welcomed ? "the router did not answer in time"
                                           : "the router cannot be reached",
                         "Plans that are already known keep working; try again.")
                     .value());
  }
};

peer::peer(net::reactor& loop, std::shared_ptr<context> zmq, peer_options options, callbacks up)
    : state_(std::make_shared<state>(loop, std::move(zmq), std::move(options), std::move(up))) {}
peer::~peer() { state_->stop(); }
void peer::start() { state_->start(); }
void peer::ask(bus::kind k, byte_span payload, std::chrono::milliseconds deadline, answer then) {
  state_->ask(k, payload, deadline, std::move(then));
}
bool peer::tell(bus::kind k, byte_span payload, std::uint64_t request) {
  return state_->send(k, payload, request) == 0;
}
void peer::acknowledge(std::uint64_t epoch, std::string payload) {
  state_->acknowledged = epoch;
  state_->ack_payload = std::move(payload);
  state_->ack_owed = state_->send(kind::ack, as_bytes(state_->ack_payload), 0) != 0;
}
bool peer::connected() const { return state_->welcomed; }

bool peer::present() const {
  const auto now = net::clock::now().time_since_epoch();
  const auto bound = unheard_heartbeats * state_->options.heartbeat;
  return state_->welcomed && state_->present_from != 0 &&
         now - std::chrono::milliseconds(state_->present_from) < bound;
}

}  // namespace pgsled::bus
