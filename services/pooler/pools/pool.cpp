#include "services/pooler/pools/pool.hpp"

#include <algorithm>

namespace pgsled::pooler {
namespace {

std::uint64_t next_random(std::uint64_t& state) {  // splitmix64, public domain by S. Vigna
  state += 0x9e3779b97f4a7c15u;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

constexpr time_point never = time_point::max();

}  // namespace

const char* name_of(connection_phase phase) {
  static constexpr const char* names[phases] = {"retrying", "connecting", "idle",   "checking",
                                                "lent",     "cleaning",   "closing"};
  return names[static_cast<std::size_t>(phase)];
}

pool::pool(pool_limits limits, lease_id& ids, std::uint64_t jitter_seed, time_point now)
    : limits_(limits), ids_(ids), random_(jitter_seed), backoff_until_(now), settled_at_(now) {
  settle(now);
}

// --- events of holders ------------------------------------------------------------------------

void pool::demand(holder_id who, std::uint32_t waiting, time_point now, std::uint32_t oldest_ms) {
  if (draining_) waiting = 0;
  if (waiting == 0 && !holders_.contains(who)) return;
  auto& h = holders_[who];
  if (waiting > 0 && h.waiting == 0) {
    h.arrived = ++arrivals_;
    h.waiting_since = now;
    const bool soon = h.taken_at != time_point{} && now - h.taken_at < std::chrono::seconds(1);
    h.quiet_for = soon ? std::min<duration>(h.quiet_for * 2, limits_.quiet * 32)
                       : duration(limits_.quiet);
    h.taken_at = {};
  }
  if (waiting == 0 && h.waiting > 0) h.quiet_since = now;
  h.waiting = waiting;
  h.oldest_ms = waiting > 0 ? oldest_ms : 0;
  settle(now);
  forget_if_idle(who);
}

bool pool::give_back(holder_id who, lease_id id, lease::generation generation, lease::condition how,
                     time_point now) {
  if (!is_lent(id, generation, who)) return false;
  auto& m = *find(id);
  auto& h = holders_[who];
  PGSLED_ASSERT(h.leases > 0);
  --h.leases;
  if (h.recalled > 0) --h.recalled;
  h.recalled = std::min(h.recalled, h.leases);
  m.holder = 0;
  if (how == lease::condition::broken) {
    ++counters_.broken;
    close(m, true, now);
  } else if (m.old || draining_) {
    close(m, false, now);
  } else if (how == lease::condition::dirty) {
    ++counters_.dirty;
    enter(m, connection_phase::cleaning, now);
    actions_.emplace_back(clean_connection{id});
  } else {
    m.proven = now;
    enter(m, connection_phase::idle, now);
  }
  settle(now);
  forget_if_idle(who);
  return true;
}

void pool::recall_ack(holder_id who, time_point now) {
  const auto at = holders_.find(who);
  if (at == holders_.end() || at->second.unacknowledged == 0) return;
  --at->second.unacknowledged;
  at->second.asked_at = now;
  at->second.warned = false;
  settle(now);  // what it still owes is in a transaction: others may be asked
  forget_if_idle(who);
}

void pool::holder_gone(holder_id who, time_point now) {
  for (auto& [id, m] : members_) {
    if (m.phase == connection_phase::lent && m.holder == who) close(m, true, now);
  }
  holders_.erase(who);
  settle(now);
}

void pool::set_orphans(holder_id who, std::uint32_t count, time_point now) {
  if (count == 0 && !holders_.contains(who)) return;
  holders_[who].orphans = count;
  settle(now);
  forget_if_idle(who);
}

// --- events of the driver ---------------------------------------------------------------------

void pool::connected(lease_id id, time_point now) {
  auto* m = find(id);
  if (m == nullptr || m->phase != connection_phase::connecting) return;
  ++counters_.connects;
  counters_.connect_us += static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now - m->since).count());
  m->born = m->proven = now;
  m->expires = lifetime_end(now);
  backoff_ = duration{0};
  backoff_until_ = now;
  enter(*m, connection_phase::idle, now);
  if (m->old) close(*m, false, now);
  settle(now);
}

void pool::connect_failed(lease_id id, const pg_error& error, time_point now) {
  auto* m = find(id);
  if (m == nullptr || m->phase != connection_phase::connecting) return;
  ++counters_.connect_failures;
  if (m->attempt < limits_.connect_attempts && !draining_ && !m->old) {
    ++m->attempt;
    m->retry_at = now + limits_.connect_attempt_delay;
    enter(*m, connection_phase::retrying, now);
    return settle(now);
  }
  enter(*m, connection_phase::closing, now);
  forget(id);
  if (now >= backoff_until_) {
    backoff_ = std::clamp<duration>(backoff_ * 2, limits_.backoff_first, limits_.backoff_most);
    backoff_until_ = now + backoff_;
  }
  fail_waiting(error, now);
  settle(now);
}

void pool::checked(lease_id id, bool good, time_point now) {
  auto* m = find(id);
  if (m == nullptr) return;
  if (m->phase != connection_phase::checking && m->phase != connection_phase::cleaning) return;
  if (!good) {
    close(*m, true, now);
  } else {
    // A check does not make it young again: idle time counts from its last use.
    const auto since = m->phase == connection_phase::checking ? m->since : now;
    m->proven = now;
    enter(*m, connection_phase::idle, now);
    m->since = since;
    if (m->old) close(*m, false, now);
  }
  settle(now);
}

void pool::lost(lease_id id, time_point now) {
  auto* m = find(id);
  if (m == nullptr || m->phase != connection_phase::idle) return;
  close(*m, false, now);
  settle(now);
}

void pool::closed(lease_id id, time_point now) {
  auto* m = find(id);
  if (m == nullptr || m->phase != connection_phase::closing) return;
  forget(id);
  settle(now);
}

void pool::retire(lease_id id) {
  auto* m = find(id);
  if (m == nullptr || m->phase != connection_phase::lent) return;
  if (!std::exchange(m->old, true)) actions_.emplace_back(retire_lease{id, m->holder});
}

void pool::configure(const pool_limits& limits, bool renew, time_point now) {
  limits_ = limits;
  draining_ = false;
  for (auto& [id, m] : members_) {
    if (!renew || m.phase == connection_phase::closing) continue;
    if (m.phase == connection_phase::lent) {
      retire(id);
    } else if (m.phase == connection_phase::checking || m.phase == connection_phase::cleaning) {
      m.old = true;
    } else {
      close(m, false, now);
    }
  }
  if (renew) backoff_until_ = now;
  settle(now);
}

void pool::drain(time_point now) {
  draining_ = true;
  for (auto& [who, h] : holders_) h.waiting = 0;
  settle(now);
}

void pool::tick(time_point now) { settle(now); }

std::vector<action> pool::take() { return std::exchange(actions_, {}); }

// --- states -----------------------------------------------------------------------------------

void pool::enter(member& m, connection_phase next, time_point now) {
  using enum connection_phase;
  const auto allowed = [&] {
    switch (m.phase) {
      case retrying: return next == connecting || next == closing;
      case connecting: return next == idle || next == retrying || next == closing;
      case idle: return next == checking || next == lent || next == closing;
      case checking: return next == idle || next == closing;
      case lent: return next == idle || next == cleaning || next == closing;
      case cleaning: return next == idle || next == closing;
      case closing: return false;
    }
    return false;
  };
  PGSLED_ASSERT(allowed());
  --counts_[static_cast<std::size_t>(m.phase)];
  ++counts_[static_cast<std::size_t>(next)];
  m.phase = next;
  if (next == checking) ++m.checks;
  if (next != checking) m.since = now;
  if (next != lent) m.holder = 0;
}

void pool::begin_open(time_point now) {
  const auto id = ++ids_;
  auto& m = members_[id];
  m.id = id;
  m.since = m.born = now;
  m.expires = never;
  ++counts_[static_cast<std::size_t>(m.phase)];
  actions_.emplace_back(open_connection{id});
}

void pool::close(member& m, bool may_run, time_point now) {
  enter(m, connection_phase::closing, now);
  actions_.emplace_back(close_connection{m.id, may_run});
}

void pool::forget(lease_id id) {
  --counts_[static_cast<std::size_t>(connection_phase::closing)];
  members_.erase(id);
  ++counters_.closes;
}

pool::member* pool::find(lease_id id) {
  const auto at = members_.find(id);
  return at == members_.end() ? nullptr : &at->second;
}

bool pool::is_lent(lease_id id, lease::generation generation, holder_id who) const {
  const auto at = members_.find(id);
  return at != members_.end() && at->second.phase == connection_phase::lent &&
         at->second.generation == generation && at->second.holder == who;
}

void pool::forget_if_idle(holder_id who) {
  const auto at = holders_.find(who);
  if (at != holders_.end() && at->second.idle()) holders_.erase(at);
}

time_point pool::lifetime_end(time_point now) {
  if (limits_.server_lifetime.count() <= 0) return never;
  const auto spread = std::min(limits_.server_lifetime_jitter, limits_.server_lifetime).count();
  auto lifetime = limits_.server_lifetime.count();
  if (spread > 0) {
    const auto width = static_cast<std::uint64_t>(2 * spread + 1);
    lifetime += static_cast<std::int64_t>(next_random(random_) % width) - spread;
  }
  return now + milliseconds(std::max<std::int64_t>(lifetime, 1));
}

// --- counts -----------------------------------------------------------------------------------

std::uint32_t pool::orphans() const {
  std::uint64_t sum = 0;
  for (const auto& [who, h] : holders_) sum += h.orphans;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(sum, 1'000'000));
}

std::uint32_t pool::used() const { return static_cast<std::uint32_t>(members_.size()) + orphans(); }

std::uint64_t pool::waiting() const {
  std::uint64_t sum = 0;
  for (const auto& [who, h] : holders_) sum += h.waiting;
  return sum;
}

std::uint32_t pool::recalled() const {
  std::uint32_t sum = 0;
  for (const auto& [who, h] : holders_) sum += h.recalled;
  return sum;
}

std::uint32_t pool::live() const {
  using enum connection_phase;
  return in_phase(idle) + in_phase(checking) + in_phase(lent) + in_phase(cleaning);
}

std::uint32_t pool::supply() const {
  using enum connection_phase;
  return in_phase(retrying) + in_phase(connecting) + in_phase(idle) + in_phase(checking) +
         in_phase(cleaning);
}

std::vector<pool::view> pool::connections() const {
  std::vector<view> all;
  all.reserve(members_.size());
  for (const auto& [id, m] : members_) {
    all.push_back({id, m.phase, m.holder, m.generation, m.since, m.born, m.checks});
  }
  return all;
}

}  // namespace pgsled::pooler
