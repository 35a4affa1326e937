#include "services/replicator/split_server.hpp"

#include "common/log/log.hpp"

namespace pgsled::replicator {
namespace {

constexpr std::uint16_t last_batch = 1;   // flag of an envelope

using metrics::description;
using metrics::type;
constexpr description copies{"pgsled_copies_running", type::gauge, "COPYs that are being split."};
constexpr description copies_total{"pgsled_copies_total", type::counter, "COPYs begun."};
constexpr description copies_failed{"pgsled_copies_failed_total", type::counter,
                                    "COPYs ended by an error in their input."};
constexpr description copy_bytes{"pgsled_copy_bytes_total", type::counter,
                                 "Bytes of input split."};

copy::split_error error(std::string sqlstate, std::string message, std::string hint = {}) {
  return {{std::move(sqlstate), std::move(message), std::move(hint), {}}, {}, 0};
}

}  // namespace

split_server::split_server(net::reactor& r, std::shared_ptr<bus::context> context,
                           std::string endpoint, bus::curve_keys curve, net::duration silence)
    : reactor_(r),
      silence_(silence),
      hub_(r, std::move(context),
           bus::hub_options{std::move(endpoint), std::move(curve), {}, 10'000},
           [this](const std::string& from, const bus::envelope& got) { receive(from, got); }) {
  auto& registry = metrics::process_registry();
  series_.push_back(registry.add(copies, {}, open_));
  series_.push_back(registry.add(copies_total, {}, opened_));
  series_.push_back(registry.add(copies_failed, {}, failed_));
  series_.push_back(registry.add(copy_bytes, {}, bytes_));
}

split_server::~split_server() { reactor_.cancel(timer_); }

result<std::string> split_server::start() {
  auto bound = hub_.bind();
  if (bound) sweep();
  return bound;
}

void split_server::allow(const std::vector<std::string>& client_keys) { hub_.allow(client_keys); }

void split_server::receive(const std::string& from, const bus::envelope& got) {
  // An instance's name is known to the router, which bounds their number.
  auto& who = workers_[from];
  if (who.incarnation != got.header.trace) {
    forget(who);   // a new process, or a line made anew, of the same name
    who.incarnation = got.header.trace;
  }
  who.heard = net::clock::now();
  switch (got.header.kind) {
    case bus::kind::heartbeat: {
      bus::header back;
      back.kind = bus::kind::heartbeat;
      back.trace = who.incarnation;
      hub_.send(from, back, {});
      return;
    }
    case bus::kind::copy_open: return open(from, who, got);
    case bus::kind::copy_batch: return batch(from, who, got);
    case bus::kind::copy_close:
      active_ -= who.copies.erase(got.header.request);
      open_.set(active_);
      return;
    default: return;
  }
}

void split_server::open(const std::string& from, worker& who, const bus::envelope& got) {
  const auto number = got.header.request;
  if (draining_) {
    return fail(from, number, error("57P01", "the replicator is shutting down", "Try again."));
  }
  if (active_ >= max_copies) {
    return fail(from, number,
                error("53400", "the replicator splits as many COPYs as it can",
                      "Try again later, or start more replicators."));
  }
  auto described = copy::decode_spec(got.payload);
  if (!described) return fail(from, number, error("08P01", described.error()));
  auto& slot = who.copies[number];
  if (!slot) ++active_;
  slot = copy::make_splitter(std::move(*described));
  opened_.add();
  open_.set(active_);
}

void split_server::batch(const std::string& from, worker& who, const bus::envelope& got) {
  const auto at = who.copies.find(got.header.request);
  if (at == who.copies.end()) {
    return fail(from, got.header.request,
                error("57P01", "the replicator that split this COPY was restarted", "Try again."));
  }
  auto& machine = *at->second;
  copy::cut_list cuts;
  bytes_.add(got.payload.size());
  bool good = got.payload.size() <= max_batch && machine.feed(got.payload, cuts);
  if (good && (got.header.flags & last_batch) != 0) good = machine.finish(cuts);
  std::string payload;
  copy::encode(cuts, payload);
  bus::header back;
  back.kind = bus::kind::copy_cuts;
  back.request = got.header.request;
  back.trace = who.incarnation;
  back.flags = good ? got.header.flags & last_batch : 0;
  // What is in doubt ends: the worker hears of it when it says more, or by the silence.
  const bool sent = hub_.send(from, back, as_bytes(payload));
  if (sent && good && (got.header.flags & last_batch) == 0) return;
  if (!good) {
    failed_.add();
    fail(from, got.header.request,
         machine.failed() ? *machine.failed() : error("08P01", "a batch of COPY is too long"));
  }
  active_ -= who.copies.erase(got.header.request);
  open_.set(active_);
}

void split_server::fail(const std::string& to, std::uint64_t number,
                        const copy::split_error& why) {
  bus::header back;
  back.kind = bus::kind::copy_failed;
  back.request = number;
  std::string payload;
  copy::encode(why, payload);
  hub_.send(to, back, as_bytes(payload));
}

void split_server::forget(worker& who) {
  active_ -= who.copies.size();
  who.copies.clear();
  open_.set(active_);
}

void split_server::sweep() {
  const auto now = net::clock::now();
  // If this process itself was held up, their messages lie unread.
  const bool late = now - std::exchange(swept_, now) > std::chrono::seconds(2);
  for (auto at = workers_.begin(); at != workers_.end();) {
    if (late || now - at->second.heard <= silence_) {
      ++at;
      continue;
    }
    if (!at->second.copies.empty()) {
      log::warn("copy", "worker {} has not been heard for a while", at->first);
    }
    forget(at->second);
    at = workers_.erase(at);
  }
  timer_ = reactor_.after(std::chrono::seconds(1), [this] { sweep(); });
}

}  // namespace pgsled::replicator
