#include "common/bus/hub.hpp"

#include <zmq.h>

#include <atomic>
#include <deque>
#include <stdexcept>

#include "common/bus/channel.hpp"
#include "common/bus/error_payload.hpp"
#include "common/log/log.hpp"

namespace pgsled::bus {

struct hub::state : std::enable_shared_from_this<hub::state> {
  net::reactor& loop;
  std::shared_ptr<context> zmq;
  hub_options options;
  receiver up;
  std::string domain;  // of the ZAP questions that this hub's handshakes raise
  std::shared_ptr<channel> wire;

  state(net::reactor& l, std::shared_ptr<context> c, hub_options o, receiver u, std::string d)
      : loop(l), zmq(std::move(c)), options(std::move(o)), up(std::move(u)), domain(std::move(d)) {}

  void receive(std::span<const byte_span> frames) {
    const auto keep = shared_from_this();  // the callback may end this hub
    const std::string from(as_text(frames[0]));
    if (frames.size() != 2) return wire->note_malformed(from);
    const auto got = decode(frames[1]);
    if (!got) return wire->note_malformed(from);
    if (known(got->header.kind)) return up(from, *got);
    if (got->header.request == 0) return;
    header head;
    head.kind = kind::error;
    head.request = got->header.request;
    wire->send(from, head, as_bytes(error_json(unknown_kind(got->header.kind))));
  }

  void open() {
    wire = channel::make(loop, zmq, ZMQ_ROUTER, [this](auto frames) { receive(frames); });
    wire->count_as(role::hub);
    wire->set_common(options.endpoint, options.high_water_mark);
    wire->set(ZMQ_ROUTER_MANDATORY, 1);
    wire->set(ZMQ_ROUTER_HANDOVER, 1);  // a restarted peer takes over its predecessor's name
    if (options.curve.secret_key.empty()) return;
    zmq->allow(domain, options.allowed_client_keys);
    wire->set(ZMQ_ZAP_DOMAIN, domain);
    wire->set(ZMQ_CURVE_SERVER, 1);
    wire->set(ZMQ_CURVE_SECRETKEY, options.curve.secret_key);
  }
};

hub::hub(net::reactor& loop, std::shared_ptr<context> zmq, hub_options options, receiver up) {
  static std::atomic<unsigned> number{0};
  state_ = std::make_shared<state>(loop, std::move(zmq), std::move(options), std::move(up),
                                   fmt::format("hub-{}", ++number));
}

hub::~hub() {
  if (state_->wire) state_->wire->close();
  state_->zmq->forget(state_->domain);
}

result<std::string> hub::bind() {
  const auto& endpoint = state_->options.endpoint;
  if (auto problem = endpoint_problem(endpoint, state_->options.curve); !problem.empty())
    return failure("F0000", std::move(problem));
  try {
    state_->open();
    if (zmq_bind(state_->wire->socket(), endpoint.c_str()) != 0) {
      auto why = fmt::format("could not bind \"{}\": {}", endpoint, zmq_strerror(zmq_errno()));
      state_->wire->close();
      return failure("08006", std::move(why));
    }
    state_->wire->watch();
  } catch (const std::runtime_error& e) {
    return failure("08006", fmt::format("could not open \"{}\": {}", endpoint, e.what()));
  }
  return state_->wire->get_text(ZMQ_LAST_ENDPOINT);
}

void hub::allow(const std::vector<std::string>& client_keys) {
  state_->options.allowed_client_keys = client_keys;
  if (state_->wire && !state_->options.curve.secret_key.empty())
    state_->zmq->allow(state_->domain, client_keys);
}

bool hub::send(const std::string& to, const header& head, byte_span payload) {
  return !to.empty() && state_->wire && state_->wire->send(to, head, payload) == 0;
}

struct link::state : std::enable_shared_from_this<link::state> {
  static constexpr std::size_t max_waiting = 1024, max_waiting_bytes = 16u << 20;
  static constexpr std::chrono::milliseconds reopen_pause{500};

  net::reactor& loop;
  std::shared_ptr<context> zmq;
  peer_options options;
  receiver up;
  std::function<void(bool)> on_connection;
  std::shared_ptr<channel> wire;
  std::deque<std::pair<header, std::string>> waiting;  // until the connection stands
  std::size_t waiting_bytes = 0;
  bool connected = false, closed = false;

  state(net::reactor& l, std::shared_ptr<context> c, peer_options o, receiver u,
        std::function<void(bool)> on)
      : loop(l),
        zmq(std::move(c)),
        options(std::move(o)),
        up(std::move(u)),
        on_connection(std::move(on)) {}

  void open() {
    if (auto problem = endpoint_problem(options.endpoint, options.curve); !problem.empty())
      throw std::runtime_error(problem);
    if (wire) wire->close();
    wire = channel::make(loop, zmq, ZMQ_DEALER, [this](auto frames) { receive(frames); });
    wire->count_as(role::link);
    wire->set_common(options.endpoint, options.high_water_mark);
    wire->set(ZMQ_ROUTING_ID, options.instance);
    wire->set(ZMQ_IMMEDIATE, 1);
    wire->set_curve_client(options.curve);
    wire->monitor([this](channel::connection now) { connection(now); });
    if (zmq_connect(wire->socket(), options.endpoint.c_str()) != 0)
      throw std::runtime_error(fmt::format("could not connect to \"{}\": {}", options.endpoint,
                                           zmq_strerror(zmq_errno())));
    wire->watch();
  }

  void try_open() {
    try {
      open();
    } catch (const std::runtime_error& e) {
      log::error("bus", "{}", e.what());
      wire.reset();
    }
  }

  void receive(std::span<const byte_span> frames) {
    const auto keep = shared_from_this();
    const auto got = frames.size() == 1 ? decode(frames[0])
                                        : tl::unexpected(envelope_error::bad_length);
    if (!got) return wire->note_malformed(options.endpoint);
    up(*got);
  }

  void connection(channel::connection now) {
    const auto keep = shared_from_this();
    if (now == channel::connection::refused) {  // the key may be allowed a moment later
      std::weak_ptr<state> weak = keep;
      loop.after(reopen_pause, [weak] {
        if (const auto self = weak.lock(); self && !self->closed) self->try_open();
      });
    }
    const bool up_now = now == channel::connection::made;
    if (connected == up_now) return;
    connected = up_now;
    if (up_now) {
      for (const auto& [head, payload] : waiting) wire->send({}, head, as_bytes(payload));
      waiting.clear();
      waiting_bytes = 0;
    }
    if (on_connection) on_connection(up_now);
  }
};

link::link(net::reactor& loop, std::shared_ptr<context> zmq, peer_options options, receiver up,
           std::function<void(bool)> connected)
    : state_(std::make_shared<state>(loop, std::move(zmq), std::move(options), std::move(up),
                                     std::move(connected))) {
  state_->try_open();
}

link::~link() {
  state_->closed = true;
  if (state_->wire) state_->wire->close();
}

bool link::send(const header& head, byte_span payload) {
  state& s = *state_;
  if (!s.wire) return false;
  if (s.connected) return s.wire->send({}, head, payload) == 0;
  if (s.waiting.size() >= state::max_waiting ||
      s.waiting_bytes + payload.size() > state::max_waiting_bytes)
    return false;
  s.waiting_bytes += payload.size();
  s.waiting.emplace_back(head, as_text(payload));
  return true;
}

}  // namespace pgsled::bus
