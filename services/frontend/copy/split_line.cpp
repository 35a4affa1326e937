#include "services/frontend/copy/split_line.hpp"

#include "common/auth/scram.hpp"
#include "common/log/log.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

constexpr std::uint16_t last_batch = 1;   // flag of an envelope
constexpr auto beat_interval = std::chrono::seconds(1);

std::uint64_t random_number() {
  const auto random = auth::random_bytes(8);
  return load_le<std::uint64_t>(random.data());
}

}  // namespace

split_line::split_line(worker& w, snapshot::replicator_ref replicator)
    : worker_(w), replicator_(std::move(replicator)) {
  next_ = random_number() | 1;
  incarnation_ = random_number();
  bus::peer_options options;
  options.endpoint = replicator_.endpoint;
  options.instance = worker_.instance();
  if (!replicator_.key.empty()) {
    options.curve = worker_.shared().curve;
    options.curve.server_public_key = replicator_.key;
  }
  link_ = std::make_unique<bus::link>(
      worker_.loop(), worker_.shared().bus, options,
      [this](const bus::envelope& got) {
        receive(got);
        worker_.run_scheduled();
      },
      [this](bool connected) {
        connection(connected);
        worker_.run_scheduled();
      });
}

split_line::~split_line() {
  worker_.loop().cancel(timer_);
  lose("it is no longer known");
}

void split_line::connection(bool connected) {
  connected_ = connected;
  if (!connected) return lose("the connection broke");
  incarnation_ = random_number();
}

void split_line::lose(std::string_view why) {
  if (users_.empty()) return;
  log::warn("copy", "the line to {} is gone: {}", replicator_.instance, why);
  for (auto& [number, user] : std::exchange(users_, {})) user->splitter_lost(why);
}

bool split_line::send(bus::kind kind, std::uint64_t number, byte_span payload,
                      std::uint16_t flags) {
  bus::header head;
  head.kind = kind;
  head.request = number;
  head.trace = incarnation_;
  head.flags = flags;
  return connected_ && link_->send(head, payload);
}

std::optional<std::uint64_t> split_line::open(const copy::spec& what, split_user& user) {
  std::string payload;
  copy::encode(what, payload);
  const auto number = next_++;
  if (!send(bus::kind::copy_open, number, as_bytes(payload))) return std::nullopt;
  if (users_.empty()) {
    heard_ = worker_.loop().now();
    worker_.loop().cancel(timer_);
    beat();
  }
  users_[number] = &user;
  return number;
}

bool split_line::batch(std::uint64_t number, byte_span bytes, bool last) {
  if (send(bus::kind::copy_batch, number, bytes, last ? last_batch : std::uint16_t{0})) return true;
  users_.erase(number);
  return false;
}

void split_line::close(std::uint64_t number) {
  if (users_.erase(number) > 0) send(bus::kind::copy_close, number, {});
}

// While something is under way.
void split_line::beat() {
  timer_ = 0;
  const auto now = worker_.loop().now();
  if (!users_.empty() && now - heard_ > silence) lose("it has not been heard for 5 s");
  send(bus::kind::heartbeat, 0, {});
  timer_ = worker_.loop().after(beat_interval, [this] {
    timer_ = 0;
    auto& owner = worker_;
    if (!users_.empty()) beat();
    owner.run_scheduled();
  });
}

void split_line::receive(const bus::envelope& got) {
  heard_ = worker_.loop().now();
  const auto at = users_.find(got.header.request);
  if (at == users_.end()) return;   // given up meanwhile
  auto& user = *at->second;
  if (got.header.kind == bus::kind::copy_cuts) {
    const auto cuts = copy::decode_cuts(got.payload);
    if (cuts) return user.cuts_came(*cuts, (got.header.flags & last_batch) != 0);
    users_.erase(at);
    return user.splitter_lost("it sent a message that cannot be read");
  }
  if (got.header.kind != bus::kind::copy_failed) return;
  const auto why = copy::decode_split_error(got.payload);
  users_.erase(at);
  if (!why) return user.splitter_lost("it sent a message that cannot be read");
  user.split_failed(*why);
}

}  // namespace pgsled::frontend
