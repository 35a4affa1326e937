// The lender's dealings with snapshots, and its views.

#include <algorithm>

#include "common/log/log.hpp"
#include "services/pooler/pools/lender.hpp"
#include "services/pooler/pools/lender_state.hpp"

namespace pgsled::pooler {
namespace {

constexpr const char* component = "pooler";
constexpr auto longest_settling = std::chrono::seconds(2);

bool same_server(const snapshot::server_pool& a, const snapshot::server_pool& b) {
  return a.host == b.host && a.port == b.port && a.server_database == b.server_database &&
         a.server_user == b.server_user && a.server_password == b.server_password &&
         a.startup == b.startup;
}

bool same_tls(const snapshot::pooler_settings& a, const snapshot::pooler_settings& b) {
  return a.tls_verify == b.tls_verify &&
         a.tls_server_ca_certificate == b.tls_server_ca_certificate &&
         a.tls_server_certificate == b.tls_server_certificate &&
         a.tls_server_private_key == b.tls_server_private_key;
}

}  // namespace

void lender::use_settings(const snapshot::pooler_settings& settings) {
  const bool renewal = same_tls(settings_, settings);
  settings_ = settings;
  if (settings.tls_verify == "disabled") {
    tls_.reset();
    return;
  }
  // Also when nothing changed in the settings: the files may have.
  auto made = net::tls_context::client(settings.tls_verify, settings.tls_server_ca_certificate,
                                       settings.tls_server_certificate,
                                       settings.tls_server_private_key);
  if (made) {
    tls_ = std::move(*made);
  } else {
    tls_error_ = made.error().message;
    // Other demands are not met by the files that met those of before.
    if (!renewal) tls_.reset();
    log::error(component, "TLS to servers: {}{}", tls_error_,
               tls_ ? "; the former files stay in use" : "");
  }
}

pool_limits lender::limits_of(const snapshot::server_pool& from) const {
  pool_limits l;
  l.budget = from.budget;
  l.min_size = std::min(from.min_size, from.budget);
  l.idle_timeout = milliseconds(from.idle_timeout);
  l.server_lifetime = milliseconds(from.server_lifetime);
  l.server_lifetime_jitter = milliseconds(std::max<std::int64_t>(from.server_lifetime_jitter, 0));
  l.healthcheck_interval = milliseconds(settings_.healthcheck_interval);
  l.recall_deadline = milliseconds(settings_.recall_deadline);
  l.connect_attempts = std::max<std::uint32_t>(settings_.connect_attempts, 1);
  l.connect_attempt_delay =
      milliseconds(std::max<std::int64_t>(settings_.connect_attempt_delay, 0));
  l.patience = std::min(l.patience, milliseconds(settings_.checkout_timeout / 2));
  return l;
}

dial_target lender::target_of(const snapshot::server_pool& from) const {
  net::tcp_options tcp;
  tcp.keepalive = settings_.tcp_keepalive;
  tcp.keepalive_idle_s = settings_.tcp_time_s;
  tcp.keepalive_interval_s = settings_.tcp_interval_s;
  tcp.keepalive_retries = settings_.tcp_retries;
  tcp.user_timeout_ms = settings_.tcp_user_timeout_ms;
  return {from.host, from.port, settings_.tls_verify, tls_, tcp};
}

bool lender::allowed(const std::string& name) const {
  return !fenced_ || allowed_.contains(name);
}

// Who is not among the members knows nothing of the fence: it may have slept, and would go on with
// the map it had.
void lender::expel(const snapshot::pooler& next) {
  fenced_ = !next.fences.empty();
  allowed_ = {next.holders.begin(), next.holders.end()};
  if (!fenced_) return expelled_.clear();
  std::vector<holder_id> strangers;
  for (const auto& [id, h] : holders_) {
    if (h.greeted && !allowed(h.name)) strangers.push_back(id);
  }
  for (const auto& [id, entry] : pools_) {
    for (const auto& one : entry->machine->connections()) {
      if (std::find(strangers.begin(), strangers.end(), one.holder) != strangers.end()) {
        expelled_.insert(one.id);
      }
    }
  }
  for (const auto id : strangers) lose(id, "the router does not hear it, and rows are being moved");
}

void lender::apply(const snapshot::pooler& next, std::function<void(counts)> done) {
  const bool new_tls = !same_tls(settings_, next.settings) || settings_.lane != next.settings.lane;
  use_settings(next.settings);
  const auto now = net::clock::now();
  std::map<lease::pool_id, const snapshot::server_pool*> wanted;
  for (const auto& one : next.pools) wanted[one.id] = &one;
  for (auto& [id, entry] : pools_) {
    if (!wanted.contains(id) && !entry->machine->draining()) entry->machine->drain(now);
  }
  for (const auto& [id, from] : wanted) {
    auto& entry = pools_[id];
    if (!entry) {
      entry = std::make_unique<pool_entry>();
      entry->settings = *from;
      entry->machine = std::make_unique<pooler::pool>(limits_of(*from), last_id_, boot_ ^ id, now);
      announce(*entry);
    } else {
      const bool renew = new_tls || !same_server(entry->settings, *from);
      entry->settings = *from;
      entry->machine->configure(limits_of(*from), renew, now);
    }
    if (draining_) entry->machine->drain(now);
  }
  epoch_ = next.epoch;
  for (auto& [who, h] : holders_) {
    std::erase_if(h.early_demand, [&](const auto& one) {
      return !wanted.contains(one.first) && one.second.epoch < epoch_;
    });
  }
  settled_ = nullptr;  // a newer epoch stands for the older one
  settling_long_ = false;
  for (auto& [id, entry] : pools_) entry->told_over = 0;
  reactor_.cancel(settle_timer_);
  for (auto& [id, entry] : pools_) run(*entry);
  settled_ = std::move(done);
  expel(next);
  settle_timer_ = reactor_.after(longest_settling, [this] {
    settling_long_ = true;
    maybe_settled();
  });
  maybe_settled();
}

// What holders have said about this pool before it was known here.
void lender::announce(pool_entry& entry) {
  const auto now = net::clock::now();
  const auto id = entry.settings.id;
  for (auto& [who, h] : holders_) {
    if (const auto at = h.orphans.find(id); at != h.orphans.end()) {
      entry.machine->set_orphans(who, at->second, now);
    }
    if (const auto early = h.early_demand.extract(id); !early.empty()) {
      entry.machine->demand(who, early.mapped().waiting, now);
    }
  }
}

void lender::maybe_settled() {
  if (!settled_) return;
  counts found;
  bool news = false;
  for (const auto& [id, entry] : pools_) {
    const auto now = over(*entry);
    news = news || now != entry->told_over;
    if (now != 0) found.emplace_back(id, now);
  }
  if (found.empty()) {
    reactor_.cancel(settle_timer_);
    std::exchange(settled_, nullptr)({});
  } else if (settling_long_ && news) {
    for (auto& [id, entry] : pools_) entry->told_over = over(*entry);
    settled_(std::move(found));
  }
}

std::uint32_t lender::over(const pool_entry& entry) {
  const auto& machine = *entry.machine;
  const bool more = machine.draining() ? !machine.empty() : machine.over_budget();
  return more ? machine.used() : 0;
}

lender::counts lender::held() const {
  counts all;
  for (const auto& [id, entry] : pools_) {
    const auto& machine = *entry->machine;
    const auto budget = machine.draining() ? 0 : machine.limits().budget;
    all.emplace_back(id, std::max(budget, machine.used()));
  }
  return all;
}

void lender::remove_drained() {
  if (draining_) return;
  for (auto at = pools_.begin(); at != pools_.end();) {
    auto& entry = *at->second;
    if (!entry.machine->draining() || !entry.machine->empty() || entry.running) {
      ++at;
      continue;
    }
    reactor_.cancel(entry.timer);
    for (const auto& [who, h] : holders_) entry.machine->set_orphans(who, 0, net::clock::now());
    count(entry);
    at = pools_.erase(at);
  }
}

void lender::drain() {
  draining_ = true;
  for (auto& [id, entry] : pools_) {
    entry->machine->drain(net::clock::now());
    run(*entry);
  }
}

bool lender::empty() const { return connections_.empty(); }

std::vector<lender::connection_view> lender::connections() const {
  std::vector<connection_view> all;
  for (const auto& [id, entry] : pools_) {
    for (const auto& one : entry->machine->connections()) {
      connection_view v{&entry->settings, one, {}, 0, false, "socket", 0};
      if (const auto h = holders_.find(one.holder); h != holders_.end()) v.holder = h->second.name;
      const auto c = connections_.find(one.id);
      if (c != connections_.end() && c->second->live) {
        auto& live = *c->second->live;
        v.pid = live.pid();
        v.encrypted = live.encrypted();
        v.statements = live.state().statements.size();
        if (c->second->lane) v.lane = c->second->relayed ? "relay" : "pumped";
      }
      all.push_back(std::move(v));
    }
  }
  return all;
}

std::vector<lender::pool_view> lender::pools() const {
  std::vector<pool_view> all;
  for (const auto& [id, entry] : pools_) all.push_back({&entry->settings, entry->machine.get()});
  return all;
}

}  // namespace pgsled::pooler
