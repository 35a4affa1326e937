#include "services/frontend/leases/relay_line.hpp"

#include <algorithm>
#include <utility>

#include "common/auth/scram.hpp"
#include "common/lease/relay_batch.hpp"
#include "common/log/log.hpp"
#include "services/frontend/worker/worker.hpp"

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
    beat();
  }
  ~relay_line() override {
    worker_.loop().cancel(timer_);
    cut_all();
  }

  // What is said while there is no connection is lost: all begins anew with the next welcome.
  void tell(const lease::message& message) override {
    if (!connected_ || full_) return;
    std::string bytes;
    lease::encode(message, bytes);
    if (flush() && put(bus::kind::lease, as_bytes(bytes))) return;
    // Not here: the caller may be among the leases that end with this.
    full_ = true;
    worker_.schedule([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired() && full_) down("its queue is full");
    });
  }

  const snapshot::pooler_ref& pooler() const override { return pooler_; }
  bool adopt(const snapshot::pooler_ref& now) override {
    if (now.relay != pooler_.relay || now.relay_key != pooler_.relay_key) return false;
    pooler_ = now;
    return true;
  }
  bool lives() const override { return false; }

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
    renew();
    link_ = std::make_unique<bus::link>(
        worker_.loop(), worker_.shared().bus, options,
        [this](const bus::envelope& got) {
          receive(got);
          worker_.run_scheduled();
        },
        [this](bool connected) {
          connected_ = connected;
          // Welcomed or not: what was on its way in either direction may be lost.
          connected ? greet() : down("the connection broke");
          worker_.run_scheduled();
        });
  }

  // Not taken: the next beat says it again.
  void greet() {
    if (!connected_) return;
    std::string bytes;
    lease::encode(worker_.greeting(pooler_.instance), bytes);
    put(bus::kind::lease, as_bytes(bytes));
  }

  void beat() {
    if (net::clock::now() - heard_ > silence && boot_ != 0) {
      down("it has not been heard for 5 s");
    } else {
      greet();
    }
    timer_ = worker_.loop().after(greeting_interval, [this] {
      beat();
      worker_.run_scheduled();
    });
  }

  // All leases that came by this line are gone; begin anew under another incarnation.
  void down(std::string_view why) {
    log::warn("relay", "the line to {} is gone: {}", pooler_.instance, why);
    cut_all();
    worker_.pooler_down(pooler_.instance);
    renew();
    greet();
  }
  void renew() {
    const auto random = auth::random_bytes(8);
    incarnation_ = load_le<std::uint64_t>(random.data());
    boot_ = channel_ = 0;
    batch_.clear();
    full_ = false;
    heard_ = net::clock::now();
  }

  void cut_all();
  void receive(const bus::envelope& got);
  void welcomed(std::uint64_t boot, std::uint64_t channel);
  void receive_parts(byte_span payload);
  void granted(lease::grant&& granted);
  // Goes when the loop has nothing else to do, with what others have to say by then.
  lease::relay_batch& batch() {
    if (batch_.empty()) {
      worker_.loop().gather([this, alive = std::weak_ptr<int>(alive_)] {
        if (alive.expired()) return;
        if (!flush()) down("its queue is full");
        worker_.run_scheduled();
      });
    }
    return batch_;
  }
  // Before a lease message: they keep their order.
  bool flush() {
    if (batch_.empty()) return true;
    const bool sent = put(bus::kind::relay, batch_.payload());
    batch_.clear();
    return sent;
  }
  bool put(bus::kind what, byte_span payload) {
    bus::header head;
    head.kind = what;
    head.trace = incarnation_;
    return link_->send(head, payload);
  }

  worker& worker_;
  snapshot::pooler_ref pooler_;
  std::unique_ptr<bus::link> link_;
  std::unordered_map<lease::lease_id, flow*> flows_;  // owned by who uses the lease
  lease::relay_batch batch_;  // at most the credit of all leases
  std::shared_ptr<int> alive_ = std::make_shared<int>();
  std::uint64_t incarnation_ = 0;
  std::uint64_t boot_ = 0, channel_ = 0;  // of the pooler that has welcomed this incarnation
  bool connected_ = false, full_ = false;
  net::time_point heard_{};
  net::reactor::timer_id timer_ = 0;
};

// The bytes of one lease. It may outlive its line, and is at its end then.
class relay_line::flow final : public server_stream {
 public:
  flow(relay_line& line, lease::lease_id id, lease::generation generation)
      : line_(&line), worker_(line.worker_), id_(id), generation_(generation) {
    line.flows_[id] = this;
  }
  ~flow() override {
    worker_.loop().cancel(timer_);
    leave();
  }

  void start(server_stream_user& user) override { user_ = &user; }

  std::ptrdiff_t send(std::string_view bytes) override {
    if (line_ == nullptr) return -1;
    const auto now = std::min(bytes.size(), credit_);
    if (now == 0) return 0;
    line_->batch().add(id_, generation_, lease::relay_what::data, as_bytes(bytes.substr(0, now)));
    credit_ -= now;
    return static_cast<std::ptrdiff_t>(now);
  }

  void interest(bool bytes, bool writable) override {
    wants_bytes_ = bytes;
    wants_writable_ = writable;
    if (wants_bytes_ && (!held_.empty() || ended_)) deliver_later();
  }

  // From the line.

  bool is(lease::generation generation) const { return generation == generation_; }
  // False: the pooler sent more than its credit.
  bool from_pooler(byte_span bytes) {
    if (held_.size() + written_ + bytes.size() > window) return false;
    if (!wants_bytes_ || !held_.empty()) {
      held_.append(as_text(bytes));
      return true;
    }
    gave(bytes.size());
    user_->stream_bytes(bytes);  // *this may be gone
    return true;
  }
  void more_credit(std::uint32_t bytes) {
    credit_ = std::min<std::size_t>(window, credit_ + bytes);
    if (wants_writable_) user_->stream_writable();
  }
  void pooler_ended() {
    ended_ = true;
    if (wants_bytes_) deliver_later();
  }
  // The line is gone. What it has brought is still read, then the end.
  void cut() override {
    leave();
    line_ = nullptr;
    ended_ = true;
    deliver_later();
  }
  bool pumped() const override { return true; }

 private:
  void deliver_later() {
    if (timer_ != 0) return;
    timer_ = worker_.loop().after({}, [this] {
      timer_ = 0;
      auto& owner = worker_;
      deliver();
      owner.run_scheduled();
    });
  }
  void deliver() {
    if (held_.empty()) {
      if (ended_) user_->stream_ended();
      return;
    }
    if (!wants_bytes_) return;
    const std::string piece = held_.substr(0, most_at_once);
    held_.erase(0, piece.size());
    gave(piece.size());
    if (!held_.empty() || ended_) deliver_later();
    user_->stream_bytes(as_bytes(piece));  // *this may be gone
  }
  void leave() {
    if (line_ == nullptr) return;
    const auto at = line_->flows_.find(id_);
    if (at != line_->flows_.end() && at->second == this) line_->flows_.erase(at);
  }
  void gave(std::size_t bytes) {
    written_ += bytes;
    if (written_ < credit_step || line_ == nullptr) return;
    line_->batch().add_credit(id_, generation_,
                              static_cast<std::uint32_t>(std::exchange(written_, 0)));
  }

  static constexpr std::size_t most_at_once = 64 * 1024;

  relay_line* line_;
  worker& worker_;
  const lease::lease_id id_;
  const lease::generation generation_;
  server_stream_user* user_ = nullptr;
  std::string held_;          // come while the user wanted nothing
  std::size_t credit_ = window, written_ = 0;  // written_: not yet given back as credit
  net::reactor::timer_id timer_ = 0;
  bool wants_bytes_ = true, wants_writable_ = false, ended_ = false;
};

void relay_line::cut_all() {
  for (auto& [id, one] : std::exchange(flows_, {})) one->cut();
}

void relay_line::granted(lease::grant&& granted) {
  auto bytes = std::make_unique<flow>(*this, granted.lease, granted.generation);
  worker_.from_pooler(pooler_.instance, std::move(granted), std::move(bytes));
}

void relay_line::welcomed(std::uint64_t boot, std::uint64_t channel) {
  if (boot_ != 0 && boot != boot_) return down("it is a new process");
  channel_ = channel;
  if (std::exchange(boot_, boot) == 0) worker_.pooler_up();
}

void relay_line::receive(const bus::envelope& got) {
  if (got.header.trace != incarnation_) return;  // meant for what this line was before
  heard_ = net::clock::now();
  const bool known = boot_ != 0;
  // It has taken this worker for dead, and its leases.
  if (known && got.header.request != channel_) return down("it has ended its channel");
  if (got.header.kind == bus::kind::relay && known) return receive_parts(got.payload);
  if (got.header.kind != bus::kind::lease) return;
  auto message = lease::decode(got.payload);
  if (!message) return down("it sent a message that cannot be read");
  if (const auto* welcome = std::get_if<lease::welcome>(&*message)) {
    return welcomed(welcome->boot, got.header.request);
  }
  if (!known) return;
  if (auto* grant = std::get_if<lease::grant>(&*message)) return granted(std::move(*grant));
  worker_.from_pooler(pooler_.instance, std::move(*message), {});
}

void relay_line::receive_parts(byte_span payload) {
  lease::relay_reader parts(payload);
  while (const auto part = parts.next()) {
    const auto at = flows_.find(part->lease);
    if (at == flows_.end() || !at->second->is(part->generation)) continue;
    switch (part->what) {
      case lease::relay_what::data:
        if (!at->second->from_pooler(part->bytes)) return down("it sent more than its credit");
        break;
      case lease::relay_what::credit:
        at->second->more_credit(load_le<std::uint32_t>(part->bytes.data()));
        break;
      case lease::relay_what::end:
        at->second->pooler_ended();
        break;
    }
    // A client whose answer is complete may hand its connection to the next at once.
    worker_.run_scheduled();
  }
  if (!parts.good()) down("it sent a message that cannot be read");
}

}  // namespace

std::unique_ptr<lease_line> make_relay_line(worker& w, snapshot::pooler_ref pooler) {
  return std::make_unique<relay_line>(w, std::move(pooler));
}

}  // namespace pgsled::frontend
