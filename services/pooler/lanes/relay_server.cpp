#include "services/pooler/lanes/relay_server.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "common/lease/relay_batch.hpp"
#include "common/log/log.hpp"

namespace pgsled::pooler {
namespace {

using io = transport::io;
constexpr std::size_t piece = 64 * 1024;         // most bytes of one envelope
constexpr std::size_t credit_step = 64 * 1024;   // given back in lumps of this size
constexpr int most_rounds = 8;

}  // namespace

// One holder.
class relay_server::channel final : public holder_link {
 public:
  channel(relay_server& server, std::string name, std::uint64_t incarnation, std::uint64_t number)
      : server_(server), name_(std::move(name)), incarnation_(incarnation), number_(number) {
    id_ = server_.lender_.attach(*this);
  }

  bool send(const lease::message& what, int) override {
    if (!flush()) return false;  // before it: they keep their order
    std::string bytes;
    lease::encode(what, bytes);
    return bytes.size() <= lease::max_message_bytes && put(bus::kind::lease, as_bytes(bytes));
  }
  // Goes when the loop has nothing else to do, with what other leases have to say by then; at once
  // when it has grown large.
  bool add(lease_id id, lease::generation generation, lease::relay_what what, byte_span bytes) {
    if (ended_) return false;
    if (batch_.empty()) server_.flush_later(name_);
    batch_.add(id, generation, what, bytes);
    return batch_.size() < piece || flush();
  }
  bool flush() {
    if (batch_.empty()) return true;
    const bool sent = put(bus::kind::relay, batch_.payload());
    batch_.clear();
    return sent;
  }
  void end() override {
    ended_ = true;
    server_.remove(name_);
  }
  bool relays() const override { return true; }
  std::unique_ptr<carrier> relay(lease_id) override;

  void lost() {
    if (std::exchange(ended_, true)) return;
    server_.lender_.gone(id_);
    server_.remove(name_);
  }

  relay_server& server_;
  const std::string name_;
  const std::uint64_t incarnation_, number_;
  holder_id id_ = 0;
  net::time_point heard_ = net::clock::now();
  std::unordered_map<lease_id, flow*> flows_;
  lease::relay_batch batch_;
  bool ended_ = false;

 private:
  bool put(bus::kind what, byte_span payload) {
    bus::header head;
    head.kind = what;
    head.request = number_;
    head.trace = incarnation_;
    return !ended_ && server_.hub_.send(name_, head, payload);
  }
};

// The bytes of one lease. May outlive its channel, of which it knows no more then.
class relay_server::flow final : public carrier, public net::watcher {
 public:
  flow(channel& link, lease_id id) : link_(&link), reactor_(link.server_.reactor_), id_(id) {
    link.flows_[id] = this;
  }
  ~flow() override { stop(); }

  void start(transport& server, lease::generation generation) override {
    server_ = &server;
    generation_ = generation;
    watch(EPOLLIN);
    if (server.pending()) read_server();
  }
  // What the server says goes to the holder as soon as it is read: only the other direction waits.
  bool quiet() const override { return up_.empty() && !eof_; }
  void stop() override {
    if (server_ != nullptr) watch(0);
    server_ = nullptr;
    if (link_ != nullptr) link_->flows_.erase(id_);
    link_ = nullptr;
  }
  void forget_link() { link_ = nullptr; }

  bool is(lease::generation generation) const {
    return server_ != nullptr && generation == generation_;
  }
  // False: more than it had credit for.
  bool from_holder(byte_span bytes) {
    if (up_.size() + written_ + bytes.size() > window) return false;
    up_.append(as_text(bytes));
    write_server();
    set_interest();
    return true;
  }
  void more_credit(std::uint32_t bytes) {
    credit_ += std::min<std::size_t>(bytes, window - std::min(credit_, window));
    set_interest();
    if (server_ != nullptr && server_->pending()) read_server();
  }
  void holder_ended() {
    if (server_ != nullptr) ::shutdown(server_->fd.get(), SHUT_WR);
  }

 private:
  void on_events(std::uint32_t events) override {
    if ((events & EPOLLOUT) != 0) write_server();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && server_ != nullptr) read_server();
    set_interest();
  }

  void read_server() {
    std::array<std::uint8_t, piece> buffer;
    for (int round = 0; round < most_rounds && credit_ > 0 && !eof_; ++round) {
      std::size_t filled = 0;
      bool more = true;
      while (more && filled < std::min(credit_, piece)) {
        std::size_t n = 0;
        const auto room = std::span(buffer).subspan(filled, std::min(credit_, piece) - filled);
        const auto how = server_->read(room, n);
        filled += n;
        more = how == io::ok && (n == room.size() || server_->tls);
        eof_ = how == io::closed || how == io::failed;
      }
      if (filled > 0 && !send(lease::relay_what::data, byte_span(buffer).first(filled))) return;
      credit_ -= filled;
      if (!more) break;
    }
    if (eof_) send(lease::relay_what::end, {});
  }

  void write_server() {
    while (!up_.empty() && server_ != nullptr) {
      std::size_t n = 0;
      const auto how = server_->write(as_bytes(up_), n);
      // Its end is told when it is read.
      if (how == io::closed || how == io::failed) n = up_.size();
      up_.erase(0, n);
      written_ += n;
      if (n == 0) break;
    }
    if (written_ < credit_step) return;
    std::array<std::uint8_t, 4> bytes;
    store_le(bytes.data(), static_cast<std::uint32_t>(written_));
    written_ = 0;
    send(lease::relay_what::credit, bytes);
  }

  bool send(lease::relay_what what, byte_span bytes) {
    if (link_ == nullptr) return false;
    if (link_->add(id_, generation_, what, bytes)) return true;
    link_->lost();
    return false;
  }

  void set_interest() {
    if (server_ == nullptr) return;
    watch((credit_ > 0 && !eof_ ? EPOLLIN : 0u) | (up_.empty() ? 0u : EPOLLOUT));
  }
  void watch(std::uint32_t events) {
    reactor_.watch(server_->fd.get(), events, this);
  }

  channel* link_;
  net::reactor& reactor_;
  const lease_id id_;
  lease::generation generation_ = 0;
  transport* server_ = nullptr;
  std::string up_;
  std::size_t credit_ = window, written_ = 0;  // written_: not yet given back as credit
  bool eof_ = false;
};

std::unique_ptr<carrier> relay_server::channel::relay(lease_id id) {
  return std::make_unique<flow>(*this, id);
}

relay_server::relay_server(net::reactor& r, lender& l, std::shared_ptr<bus::context> context,
                           std::string endpoint, bus::curve_keys curve)
    : reactor_(r),
      lender_(l),
      dead_(r),
      hub_(r, std::move(context),
           bus::hub_options{std::move(endpoint), std::move(curve), {}, 10'000},
           [this](const std::string& from, const bus::envelope& got) { receive(from, got); }) {}

relay_server::~relay_server() {
  reactor_.cancel(timer_);
  for (auto& [name, one] : channels_) {
    for (auto& [id, f] : one->flows_) f->forget_link();
    lender_.gone(one->id_);
  }
}

result<std::string> relay_server::start() {
  auto bound = hub_.bind();
  if (bound) sweep();
  return bound;
}

void relay_server::allow(const std::vector<std::string>& client_keys) { hub_.allow(client_keys); }

relay_server::channel* relay_server::find(const std::string& name, std::uint64_t incarnation) {
  const auto at = channels_.find(name);
  const bool its = at != channels_.end() && at->second->incarnation_ == incarnation;
  return its ? at->second.get() : nullptr;
}

relay_server::channel* relay_server::open(const std::string& name, std::uint64_t incarnation) {
  // A new process under the same name, or a line made anew.
  if (const auto at = channels_.find(name); at != channels_.end()) at->second->lost();
  if (channels_.size() >= holder_bound) return nullptr;
  auto fresh = std::make_unique<channel>(*this, name, incarnation, ++last_channel_);
  return channels_.emplace(name, std::move(fresh)).first->second.get();
}

// To who may believe that it has a channel and leases. Lost where its queue is full: then the
// answer to its next hello shows it.
void relay_server::tell_ended(const std::string& name, std::uint64_t incarnation) {
  bus::header head;
  head.kind = bus::kind::relay;
  head.trace = incarnation;
  hub_.send(name, head, {});
}

void relay_server::receive(const std::string& from, const bus::envelope& got) {
  if (got.header.kind != bus::kind::lease && got.header.kind != bus::kind::relay) return;
  const auto incarnation = got.header.trace;
  auto* link = find(from, incarnation);
  if (got.header.kind == bus::kind::relay) {
    if (link == nullptr) return tell_ended(from, incarnation);
    link->heard_ = net::clock::now();
    return receive_parts(*link, got.payload);
  }
  auto what = lease::decode(got.payload);
  const bool greeting = what && std::holds_alternative<lease::hello>(*what);
  if (link == nullptr && greeting) link = open(from, incarnation);
  if (link == nullptr) return tell_ended(from, incarnation);
  link->heard_ = net::clock::now();
  if (!what) return lender_.refuse(link->id_, "unreadable message: " + what.error());
  lender_.receive(link->id_, std::move(*what));
}

void relay_server::receive_parts(channel& link, byte_span payload) {
  lease::relay_reader parts(payload);
  while (const auto part = parts.next()) {
    const auto f = link.flows_.find(part->lease);
    if (f == link.flows_.end() || !f->second->is(part->generation)) continue;
    switch (part->what) {
      case lease::relay_what::data:
        if (!f->second->from_holder(part->bytes)) {
          return lender_.refuse(link.id_, "it sent more than its credit");
        }
        break;
      case lease::relay_what::credit:
        f->second->more_credit(load_le<std::uint32_t>(part->bytes.data()));
        break;
      case lease::relay_what::end:
        f->second->holder_ended();
        break;
    }
    // Its queue may have been found full meanwhile.
    if (link.ended_) return;
  }
  if (!parts.good()) lender_.refuse(link.id_, "unreadable bytes of leases");
}

void relay_server::flush_later(const std::string& name) {
  to_flush_.push_back(name);
  if (to_flush_.size() > 1) return;
  reactor_.gather([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired()) return;
    for (const auto& one : std::exchange(to_flush_, {})) {
      const auto at = channels_.find(one);
      if (at != channels_.end() && !at->second->flush()) at->second->lost();
    }
  });
}

void relay_server::sweep() {
  const auto now = net::clock::now();
  // If this process itself was held up, their messages lie unread.
  const bool late = now - std::exchange(swept_, now) > std::chrono::seconds(2);
  std::vector<channel*> silent;
  for (auto& [name, one] : channels_) {
    if (!late && now - one->heard_ > silence) silent.push_back(one.get());
  }
  for (auto* one : silent) {
    log::warn("pooler", "holder {} has not been heard for a while", one->name_);
    one->lost();
  }
  timer_ = reactor_.after(std::chrono::seconds(1), [this] { sweep(); });
}

// Perhaps from inside the channel itself: destroyed later.
void relay_server::remove(const std::string& name) {
  const auto at = channels_.find(name);
  if (at == channels_.end()) return;
  tell_ended(name, at->second->incarnation_);
  for (auto& [id, f] : at->second->flows_) f->forget_link();
  at->second->flows_.clear();
  dead_.bury(std::move(at->second));
  channels_.erase(at);
}

}  // namespace pgsled::pooler
