#include "services/frontend/relay_line.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "common/auth/scram.hpp"
#include "common/log/log.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

namespace {

// docs/formats/lease.md, "Relay lane".
constexpr std::size_t window = 256 * 1024;       // credit of a lease in either direction
constexpr std::size_t credit_step = 64 * 1024;   // given back in lumps of this size
constexpr auto greeting_interval = std::chrono::seconds(1);
constexpr auto silence = std::chrono::seconds(5);

class relay_line final : public lease_line {
 public:
  relay_line(worker& w, snapshot::pooler_ref pooler) : worker_(w), pooler_(std::move(pooler)) {
    open();
    greet();
  }
  ~relay_line() override {
    worker_.loop().cancel(timer_);
    flows_.clear();
  }

  void tell(const lease::message& message) override {
    if (const auto* back = std::get_if<lease::give_back>(&message)) flows_.erase(back->lease);
    std::string bytes;
    lease::encode(message, bytes);
    bus::header head;
    head.kind = bus::kind::lease;
    head.trace = incarnation_;
    if (!link_->send(head, as_bytes(bytes))) down("its queue is full");
  }

 private:
  class flow;

  void open() {
    bus::peer_options options;
    options.endpoint = pooler_.relay;
    options.instance = worker_.instance();
    if (!pooler_.relay_key.empty()) {
      options.curve = worker_.shared().curve;
      options.curve.server_public_key = pooler_.relay_key;
    }
    const auto random = auth::random_bytes(8);
    incarnation_ = load_le<std::uint64_t>(random.data());
    boot_ = 0;
    heard_ = net::clock::now();
    link_ = std::make_unique<bus::link>(
        worker_.loop(), worker_.shared().bus, options,
        [this](const bus::envelope& got) {
          receive(got);
          worker_.run_scheduled();
        },
        [this](bool connected) {
          if (!connected && boot_ != 0) worker_.schedule([this] { down("the connection broke"); });
          worker_.run_scheduled();
        });
  }

  void greet() {
    if (net::clock::now() - heard_ > silence && boot_ != 0) down("it has not been heard for 5 s");
    tell(worker_.greeting(pooler_.instance));
    timer_ = worker_.loop().after(greeting_interval, [this] {
      greet();
      worker_.run_scheduled();
    });
  }

  // All leases that came by this line are gone; begin anew under another incarnation.
  void down(std::string_view why) {
    log::warn("relay", "the line to {} is gone: {}", pooler_.instance, why);
    flows_.clear();
    worker_.pooler_down(pooler_.instance);
    const auto random = auth::random_bytes(8);
    incarnation_ = load_le<std::uint64_t>(random.data());
    boot_ = 0;
    heard_ = net::clock::now();
  }

  void receive(const bus::envelope& got);
  void granted(lease::grant&& granted);
  bool send(bus::kind kind, lease::lease_id id, lease::generation generation, byte_span payload) {
    bus::header head;
    head.kind = kind;
    head.request = id;
    head.trace = generation;
    return link_->send(head, payload);
  }

  worker& worker_;
  snapshot::pooler_ref pooler_;
  std::unique_ptr<bus::link> link_;
  std::unordered_map<lease::lease_id, std::unique_ptr<flow>> flows_;
  std::uint64_t incarnation_ = 0, boot_ = 0;
  net::time_point heard_{};
  net::reactor::timer_id timer_ = 0;
};

// The bytes of one lease, between our end of its socket pair and the bus.
class relay_line::flow final : public net::watcher {
 public:
  flow(relay_line& line, lease::lease_id id, lease::generation generation, net::unique_fd fd)
      : line_(line), id_(id), generation_(generation), fd_(std::move(fd)) {
    line_.worker_.loop().add(fd_.get(), EPOLLIN, this);
    watched_ = EPOLLIN;
  }
  ~flow() { line_.worker_.loop().remove(fd_.get()); }

  bool is(std::uint64_t generation) const { return generation == generation_; }

  // False: the pooler sent more than its credit.
  bool from_pooler(byte_span bytes) {
    if (down_.size() + written_ + bytes.size() > window) return false;
    if (down_.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      const auto n = sent > 0 ? static_cast<std::size_t>(sent) : 0;
      gave(n);
      bytes = bytes.subspan(n);
    }
    down_.append(as_text(bytes));
    watch();
    return true;
  }
  void more_credit(std::uint32_t bytes) {
    credit_ = std::min<std::size_t>(window, credit_ + bytes);
    watch();
  }
  void pooler_ended() {
    ended_ = true;
    if (down_.empty()) ::shutdown(fd_.get(), SHUT_WR);
  }

 private:
  void on_events(std::uint32_t events) override {
    if ((events & EPOLLOUT) != 0 && !down_.empty()) {
      const ssize_t sent = ::send(fd_.get(), down_.data(), down_.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        down_.erase(0, static_cast<std::size_t>(sent));
        gave(static_cast<std::size_t>(sent));
      }
      if (down_.empty() && ended_) ::shutdown(fd_.get(), SHUT_WR);
    }
    if ((events & (EPOLLIN | EPOLLHUP)) != 0 && credit_ > 0) {
      const auto buffer = line_.worker_.read_buffer();
      const ssize_t got = ::recv(fd_.get(), buffer.data(), std::min(buffer.size(), credit_), 0);
      if (got > 0) {
        credit_ -= static_cast<std::size_t>(got);
        line_.send(bus::kind::relay_data, id_, generation_, byte_span(buffer.data(), static_cast<std::size_t>(got)));
      } else if (got == 0) {
        closed_ = true;  // given back, or about to be
      }
    }
    watch();
  }
  void gave(std::size_t bytes) {
    written_ += bytes;
    if (written_ < credit_step) return;
    std::array<std::uint8_t, 4> payload;
    store_le(payload.data(), static_cast<std::uint32_t>(written_));
    written_ = 0;
    line_.send(bus::kind::relay_credit, id_, generation_, payload);
  }
  void watch() {
    const std::uint32_t wanted = (credit_ > 0 && !closed_ ? EPOLLIN : 0u) | (down_.empty() ? 0u : EPOLLOUT);
    if (wanted == watched_) return;
    // Without any interest epoll would still report the hang-up of the other end, for ever.
    if (wanted == 0) {
      line_.worker_.loop().remove(fd_.get());
    } else if (watched_ == 0) {
      line_.worker_.loop().add(fd_.get(), wanted, this);
    } else {
      line_.worker_.loop().modify(fd_.get(), wanted, this);
    }
    watched_ = wanted;
  }

  relay_line& line_;
  const lease::lease_id id_;
  const lease::generation generation_;
  net::unique_fd fd_;
  std::string down_;  // towards the session, not yet taken
  std::size_t credit_ = window, written_ = 0;
  std::uint32_t watched_ = 0;
  bool ended_ = false, closed_ = false;
};

void relay_line::granted(lease::grant&& granted) {
  auto [inner, outer] = net::stream_pair();
  if (!inner || !outer) {
    log::error("relay", "no descriptors left for a relayed connection");
    tell(lease::give_back{granted.lease, granted.generation, lease::condition::broken, {}});
    return;
  }
  flows_[granted.lease] = std::make_unique<flow>(*this, granted.lease, granted.generation, std::move(inner));
  worker_.from_pooler(pooler_.instance, std::move(granted), std::move(outer));
}

void relay_line::receive(const bus::envelope& got) {
  heard_ = net::clock::now();
  if (got.header.kind == bus::kind::lease) {
    auto message = lease::decode(got.payload);
    if (!message) return down("it sent a message that cannot be read");
    if (const auto* welcome = std::get_if<lease::welcome>(&*message)) {
      if (boot_ != 0 && welcome->boot != boot_) down("it is a new process");
      if (std::exchange(boot_, welcome->boot) == 0) worker_.pooler_up();
      return;
    }
    if (auto* grant = std::get_if<lease::grant>(&*message)) return granted(std::move(*grant));
    worker_.from_pooler(pooler_.instance, std::move(*message), {});
    return;
  }
  const auto at = flows_.find(got.header.request);
  if (at == flows_.end() || !at->second->is(got.header.trace)) return;
  switch (got.header.kind) {
    case bus::kind::relay_data:
      if (!at->second->from_pooler(got.payload)) down("it sent more than its credit");
      break;
    case bus::kind::relay_credit:
      if (got.payload.size() == 4) at->second->more_credit(load_le<std::uint32_t>(got.payload.data()));
      break;
    case bus::kind::relay_end:
      at->second->pooler_ended();
      break;
    default:
      break;
  }
}

}  // namespace

std::unique_ptr<lease_line> make_relay_line(worker& w, snapshot::pooler_ref pooler) {
  return std::make_unique<relay_line>(w, std::move(pooler));
}

}  // namespace pgsled::frontend
