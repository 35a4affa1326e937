#include "common/bus/channel.hpp"

#include <sys/epoll.h>
#include <zmq.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "common/log/log.hpp"

namespace pgsled::bus {
namespace {

constexpr int reconnect_ms = 50, reconnect_max_ms = 1000, handshake_ms = 5000;
constexpr std::chrono::seconds malformed_log_pause{10};
constexpr int heartbeat_ms = 2000, heartbeat_timeout_ms = 6000;

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(fmt::format("{}: {}", what, zmq_strerror(zmq_errno())));
}

class message {
 public:
  message() { zmq_msg_init(&it_); }
  ~message() { zmq_msg_close(&it_); }
  message(const message&) = delete;
  message& operator=(const message&) = delete;
  zmq_msg_t* get() { return &it_; }
  byte_span bytes() {
    return {static_cast<const std::uint8_t*>(zmq_msg_data(&it_)), zmq_msg_size(&it_)};
  }

 private:
  zmq_msg_t it_;
};

}  // namespace

std::shared_ptr<channel> channel::make(net::reactor& loop, std::shared_ptr<context> in, int type,
                                       handler to) {
  return std::make_shared<channel>(loop, std::move(in), type, std::move(to));
}

channel::channel(net::reactor& loop, std::shared_ptr<context> in, int type, handler to)
    : reactor_(loop),
      context_(std::move(in)),
      handler_(std::move(to)),
      socket_(zmq_socket(context_->handle(), type)) {
  if (socket_ == nullptr) fail("no ZeroMQ socket");
  set(ZMQ_LINGER, 0);
}

channel::~channel() { close(); }

void channel::set(int option, int value) {
  if (zmq_setsockopt(socket_, option, &value, sizeof value) != 0) fail("ZeroMQ option");
}
void channel::set(int option, const std::string& value) {
  if (zmq_setsockopt(socket_, option, value.data(), value.size()) != 0) fail("ZeroMQ option");
}
std::string channel::get_text(int option) const {
  std::array<char, 512> text{};
  std::size_t size = text.size();
  if (zmq_getsockopt(socket_, option, text.data(), &size) != 0 || size == 0) return {};
  return {text.data(), size - 1};
}

void channel::set_common(const std::string& endpoint, std::size_t high_water_mark) {
  const int mark = static_cast<int>(std::min<std::size_t>(high_water_mark, 1'000'000));
  set(ZMQ_SNDHWM, mark);
  set(ZMQ_RCVHWM, mark);
  const std::int64_t largest = max_payload_bytes + 0xFFFF;  // room for a header that has grown
  if (zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &largest, sizeof largest) != 0) fail("ZeroMQ option");
  set(ZMQ_RECONNECT_IVL, reconnect_ms);
  set(ZMQ_RECONNECT_IVL_MAX, reconnect_max_ms);
  set(ZMQ_HANDSHAKE_IVL, handshake_ms);
  if (!endpoint.starts_with("tcp://")) return;
  set(ZMQ_HEARTBEAT_IVL, heartbeat_ms);  // a host that vanished closes no connection
  set(ZMQ_HEARTBEAT_TIMEOUT, heartbeat_timeout_ms);
  if (endpoint.find('[') != std::string::npos) set(ZMQ_IPV6, 1);
}

void channel::set_curve_client(const curve_keys& keys) {
  if (keys.secret_key.empty()) return;
  set(ZMQ_CURVE_SERVERKEY, keys.server_public_key);
  set(ZMQ_CURVE_PUBLICKEY, keys.public_key);
  set(ZMQ_CURVE_SECRETKEY, keys.secret_key);
}

void channel::watch() {
  std::size_t size = sizeof fd_;
  if (zmq_getsockopt(socket_, ZMQ_FD, &fd_, &size) != 0) fail("ZMQ_FD");
  reactor_.add(fd_, EPOLLIN, this);
  watching_ = true;
  look_again();  // an edge may have passed before anybody looked
}

void channel::monitor(connection_handler connected) {
  static std::atomic<unsigned> number{0};
  const auto name = fmt::format("inproc://monitor-{}", ++number);
  constexpr int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                         ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
  if (zmq_socket_monitor(socket_, name.c_str(), events) != 0) fail("ZeroMQ monitor");
  auto on_event = [connected = std::move(connected)](std::span<const byte_span> frames) {
    if (frames.size() != 2 || frames[0].size() < 2) return;
    const int event = load_le<std::uint16_t>(frames[0].data());
    const auto where = as_text(frames[1]);
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) return connected(connection::made);
    if (event == ZMQ_EVENT_DISCONNECTED) return connected(connection::lost);
    log::warn("bus", "the handshake with {} failed: are the CURVE keys the right ones?", where);
    connected(connection::refused);
  };
  monitor_ = make(reactor_, context_, ZMQ_PAIR, std::move(on_event));
  if (zmq_connect(monitor_->socket_, name.c_str()) != 0) fail("ZeroMQ monitor");
  monitor_->watch();
}

int channel::send(std::string_view to, const header& head, byte_span payload) {
  const int error = send_uncounted(to, head, payload);
  if (meter_ != nullptr)
    (error == 0 ? meter_->sent : meter_->refused).fetch_add(1, std::memory_order_relaxed);
  return error;
}

void channel::note_malformed(std::string_view from) {
  if (meter_ != nullptr) meter_->malformed.fetch_add(1, std::memory_order_relaxed);
  if (reactor_.now() < quiet_until_) return;
  quiet_until_ = reactor_.now() + malformed_log_pause;
  log::warn("bus", "a message from {} was dropped: it is no envelope", from);
}

int channel::send_uncounted(std::string_view to, const header& head, byte_span payload) {
  if (socket_ == nullptr) return ENOTSOCK;
  if (payload.size() > max_payload_bytes) return EMSGSIZE;
  look_again();
  if (!to.empty() &&
      zmq_send(socket_, to.data(), to.size(), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
    return zmq_errno();
  zmq_msg_t body;
  if (zmq_msg_init_size(&body, header::size + payload.size()) != 0) return ENOMEM;
  auto* const bytes = static_cast<std::uint8_t*>(zmq_msg_data(&body));
  encode_header(head, payload.size(), bytes);
  if (!payload.empty()) std::memcpy(bytes + header::size, payload.data(), payload.size());
  if (zmq_msg_send(&body, socket_, ZMQ_DONTWAIT) >= 0) return 0;
  const int error = zmq_errno();
  zmq_msg_close(&body);
  return error;
}

void channel::close() {
  if (socket_ == nullptr) return;
  if (monitor_) {
    zmq_socket_monitor(socket_, nullptr, 0);
    monitor_->close();
  }
  if (watching_) reactor_.remove(fd_);
  watching_ = false;
  zmq_close(socket_);
  socket_ = nullptr;
}

void channel::on_events(std::uint32_t) { pump(); }

void channel::look_again() {
  if (looking_ || !watching_) return;
  looking_ = true;
  reactor_.defer([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->looking_ = false;
    if (self->socket_ != nullptr) self->pump();
  });
}

channel::received channel::receive_one() {
  std::array<message, max_frames> parts;
  std::array<byte_span, max_frames> frames;
  std::size_t count = 0;
  bool too_many = false;
  for (int more = 1; more != 0;) {
    message spare;
    message& part = count < max_frames ? parts[count] : spare;
    if (zmq_msg_recv(part.get(), socket_, ZMQ_DONTWAIT) < 0) return received::none;
    more = zmq_msg_more(part.get());
    if (count < max_frames)
      frames[count++] = part.bytes();
    else
      too_many = true;
  }
  if (meter_ != nullptr) meter_->received.fetch_add(1, std::memory_order_relaxed);
  if (too_many) {
    note_malformed("a peer");
    return received::malformed;
  }
  handler_(std::span(frames).first(count));
  return received::one;
}

void channel::pump() {
  const auto self = shared_from_this();  // a callback may drop the last reference
  for (int n = 0; n < messages_per_turn; ++n) {
    if (receive_one() == received::none) return;
    if (socket_ == nullptr) return;
  }
  look_again();
}

}  // namespace pgsled::bus
