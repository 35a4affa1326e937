// The second half of the pool: what it decides after every event.

#include <algorithm>

#include "services/pooler/pools/pool.hpp"

namespace pgsled::pooler {

using enum connection_phase;

void pool::settle(time_point now) {
  settled_at_ = now;
  expire(now);
  trim(now);
  if (draining_) return;
  lend_idle(now);
  open_wanted(now);
  recall_unfair(now);
}

// What only time decides.
void pool::expire(time_point now) {
  auto open = static_cast<std::uint32_t>(members_.size()) - in_phase(closing);
  const auto idle_limit = limits_.idle_timeout;
  const auto check_after = limits_.healthcheck_interval;
  for (auto& [id, m] : members_) {
    if (m.phase == retrying && now >= m.retry_at) {
      enter(m, connecting, now);
      actions_.emplace_back(open_connection{id});
    } else if (m.phase == idle) {
      const bool unused = idle_limit.count() > 0 && now - m.since >= idle_limit &&
                          open > limits_.min_size;
      if (unused || now >= m.expires) {
        close(m, false, now);
        --open;
      } else if (check_after.count() > 0 && now - m.proven >= check_after) {
        enter(m, checking, now);
        actions_.emplace_back(check_connection{id});
      }
    } else if (m.phase == lent && now >= m.expires) {
      retire(id);
    }
  }
  for (auto& [who, h] : holders_) {
    if (h.unacknowledged == 0 || now - h.asked_at < limits_.recall_deadline) continue;
    if (!std::exchange(h.warned, true)) {
      // If this process itself was held up, the answer may lie unread in its socket.
      h.asked_at = now - limits_.recall_deadline + limits_.grace;
      continue;
    }
    h.unacknowledged = 0;  // said once
    actions_.emplace_back(drop_holder{who});
  }
}

// Back under the budget: what nobody has is closed, the rest is recalled.
void pool::trim(time_point now) {
  const std::uint32_t budget = draining_ ? 0 : limits_.budget;
  const auto excess = [&] {
    const auto there = used() - in_phase(closing);
    return there > budget ? there - budget : 0;
  };
  while (excess() > 0) {
    member* victim = nullptr;
    for (auto& [id, m] : members_) {
      if (m.phase != retrying && m.phase != connecting && m.phase != idle) continue;
      if (victim == nullptr || m.phase < victim->phase ||
          (m.phase == victim->phase && m.since < victim->since)) {
        victim = &m;
      }
    }
    if (victim == nullptr) break;
    close(*victim, false, now);
  }
  const auto retired = std::count_if(members_.begin(), members_.end(), [](const auto& entry) {
    return entry.second.phase == lent && entry.second.old;
  });
  const auto on_the_way = recalled() + in_phase(checking) + in_phase(cleaning) +
                          static_cast<std::uint32_t>(retired);
  auto ask = excess() > on_the_way ? excess() - on_the_way : 0;
  while (ask > 0) {
    auto most = holders_.end();
    for (auto at = holders_.begin(); at != holders_.end(); ++at) {
      if (at->second.leases == at->second.recalled) continue;
      if (most == holders_.end() ||
          at->second.leases - at->second.recalled > most->second.leases - most->second.recalled) {
        most = at;
      }
    }
    if (most == holders_.end()) break;
    const auto count = std::min(ask, most->second.leases - most->second.recalled);
    recall_from(most->first, most->second, count, now);
    ask -= count;
  }
}

void pool::lend_idle(time_point now) {
  const bool check = limits_.healthcheck_interval.count() > 0;
  while (in_phase(idle) > 0) {
    const auto who = next_to_serve();
    if (who == 0) return;
    member* best = nullptr;  // the most recently used: the others may time out
    for (auto& [id, m] : members_) {
      if (m.phase == idle && (best == nullptr || m.since >= best->since)) best = &m;
    }
    // expire() has already sent away what is due for a check.
    PGSLED_ASSERT(!check || now - best->proven < limits_.healthcheck_interval);
    lend(*best, who, now);
  }
}

// Among those that wait, first those below their allotment or starving, then the others; in order
// of arrival.
holder_id pool::next_to_serve() const {
  bool turns = false;
  const auto allotted = allotments(turns);
  holder_id chosen = 0;
  bool chosen_below = false;
  std::uint64_t arrived = 0;
  for (const auto& [who, h] : holders_) {
    if (h.waiting == 0) continue;
    const bool below = h.leases < allotted.at(who) || h.starving();
    const bool better = chosen == 0 || (below && !chosen_below) ||
                        (below == chosen_below && h.arrived < arrived);
    if (!better) continue;
    chosen = who;
    chosen_below = below;
    arrived = h.arrived;
  }
  return chosen;
}

void pool::lend(member& m, holder_id who, time_point now) {
  auto& h = holders_[who];
  enter(m, lent, now);
  m.holder = who;
  ++m.generation;
  ++h.leases;
  --h.waiting;
  h.oldest_ms = 0;
  ++counters_.lent;
  if (now > h.waiting_since) {
    ++counters_.waits;
    counters_.wait_us += static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now - h.waiting_since).count());
  }
  h.waiting_since = h.lent_at = now;
  h.arrived = ++arrivals_;
  if (h.waiting == 0) h.quiet_since = now;
  actions_.emplace_back(lend_connection{m.id, who, m.generation});
}

void pool::open_wanted(time_point now) {
  if (now < backoff_until_) return;
  const auto coming = supply();
  const auto open = static_cast<std::uint32_t>(members_.size()) - in_phase(closing);
  std::uint64_t want = waiting() > coming ? waiting() - coming : 0;
  if (open < limits_.min_size) want = std::max<std::uint64_t>(want, limits_.min_size - open);
  for (; want > 0 && used() < limits_.budget; --want) begin_open(now);
}

// While the server refuses new connections there are only those that live.
std::uint32_t pool::lendable_budget(time_point now) const {
  const auto away = orphans();
  const auto budget = limits_.budget > away ? limits_.budget - away : 0;
  return now < backoff_until_ ? std::min(budget, live()) : budget;
}

std::map<holder_id, std::uint32_t> pool::allotments(bool& turns) const {
  std::map<holder_id, std::uint32_t> allotted;
  std::vector<std::pair<holder_id, const holder*>> active;
  for (const auto& [who, h] : holders_) {
    allotted[who] = 0;
    if (h.waiting > 0 || h.leases > 0) active.emplace_back(who, &h);
  }
  if (active.empty()) return allotted;
  const auto count = static_cast<std::uint32_t>(active.size());
  const auto budget = lendable_budget(settled_at_);
  turns = budget < count;
  if (turns) {
    const auto rank = [](const holder& h) { return h.waiting == 0 ? 2 : h.leases > 0 ? 1 : 0; };
    std::stable_sort(active.begin(), active.end(), [&](const auto& a, const auto& b) {
      const int left = rank(*a.second), right = rank(*b.second);
      return left != right ? left < right : a.second->arrived < b.second->arrived;
    });
  }
  const auto each = budget / count, remainder = budget % count;
  for (std::uint32_t i = 0; i < count; ++i) {
    allotted[active[i].first] = each + (i < remainder ? 1 : 0);
  }
  return allotted;
}

void pool::recall_unfair(time_point now) {
  if (waiting() == 0) return;
  // Free soon without asking anybody.
  std::uint64_t free = supply() + in_phase(closing);
  if (now >= backoff_until_ && used() < limits_.budget) free += limits_.budget - used();
  recall_above(free, now);
  recall_quiet(free, now);
  recall_for_starving(free, now);
}

// One lease, at its next transaction end, from the holder that has most and is not starving itself.
void pool::recall_for_starving(std::uint64_t coming, time_point now) {
  std::uint64_t starving = 0;
  for (const auto& [who, h] : holders_) {
    coming += h.starving() ? 0 : h.recalled;
    starving += h.starving() ? 1 : 0;
  }
  if (starving <= coming) return;
  holder_id from = 0;
  std::uint32_t most = 0;
  for (const auto& [who, h] : holders_) {
    const auto kept = h.leases - h.recalled;
    if (h.starving() || kept <= most) continue;
    from = who;
    most = kept;
  }
  if (from != 0) recall_from(from, holders_[from], 1, now);
}

// For holders below their allotment, from those above: first from those without demand.
void pool::recall_above(std::uint64_t coming, time_point now) {
  bool turns = false;
  const auto allotted = allotments(turns);
  std::uint64_t missing = 0;  // what holders below their allotment wait for
  for (const auto& [who, h] : holders_) {
    const auto allotment = allotted.at(who);
    if (h.leases < allotment) missing += std::min(h.waiting, allotment - h.leases);
    // What one owes that waits itself and has no more than its own is no help to anybody.
    if (h.waiting == 0 || h.leases > allotment) coming += h.recalled;
  }
  missing = missing > coming ? missing - coming : 0;
  while (missing > 0) {
    holder_id from = 0;
    std::uint32_t most = 0;
    bool from_waits = true;
    for (const auto& [who, h] : holders_) {
      const auto kept = h.leases - h.recalled;
      const bool waits = h.waiting > 0;
      if (kept <= allotted.at(who) || (waits && !from_waits)) continue;
      if (waits == from_waits && kept - allotted.at(who) <= most) continue;
      if (turns && now - h.lent_at < limits_.slice) continue;
      from = who;
      most = kept - allotted.at(who);
      from_waits = waits;
    }
    if (from == 0) break;
    const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(missing, most));
    recall_from(from, holders_[from], count, now);
    missing -= count;
  }
}

// For all that wait, whatever their allotment, from those without demand. An acknowledged recall
// does not count: idle leases came back before the acknowledgement, what is still owed is in a
// transaction, perhaps for long, and the next holder may have idle ones. Neither does what those
// owe that wait themselves.
void pool::recall_quiet(std::uint64_t coming, time_point now) {
  const std::uint64_t unserved = waiting();
  for (const auto& [who, h] : holders_) {
    if (h.waiting == 0 && h.unacknowledged > 0) coming += h.recalled;
  }
  for (auto& [who, h] : holders_) {
    if (unserved <= coming) break;
    const auto kept = h.leases - h.recalled;
    if (h.waiting > 0 || kept == 0) continue;
    if (now - h.quiet_since < std::max<duration>(h.quiet_for, limits_.quiet)) continue;
    const auto half = (kept + 1) / 2;
    const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(unserved - coming, half));
    recall_from(who, h, count, now);
    h.quiet_since = h.taken_at = now;
    coming += count;
  }
}

void pool::recall_from(holder_id who, holder& h, std::uint32_t count, time_point now) {
  if (h.unacknowledged++ == 0) {
    h.asked_at = now;
    h.warned = false;
  }
  h.arrived = ++arrivals_;
  h.recalled += count;
  counters_.recalls += count;
  actions_.emplace_back(recall_leases{who, count, h.recalled});
}

// Nobody is told while others may still connect, or while connections live that will come back,
// unless the holder's wait has become long.
void pool::fail_waiting(const pg_error& error, time_point now) {
  const bool hope = live() + in_phase(connecting) + in_phase(retrying) > 0;
  for (auto& [who, h] : holders_) {
    if (h.waiting == 0 || (hope && now - h.waiting_since < limits_.patience)) continue;
    h.waiting = 0;
    h.quiet_since = now;
    actions_.emplace_back(tell_failure{who, error});
  }
  std::erase_if(holders_, [](const auto& entry) { return entry.second.idle(); });
}

std::optional<time_point> pool::deadline() const {
  time_point first = time_point::max();
  const auto until = [&](time_point when) { first = std::min(first, when); };
  const auto after = [&](time_point since, milliseconds delay) {
    if (delay.count() > 0) until(since + delay);
  };
  const bool may_shrink = members_.size() - in_phase(closing) > limits_.min_size;
  for (const auto& [id, m] : members_) {
    if (m.phase == retrying) until(m.retry_at);
    if (m.phase == idle) {
      if (may_shrink) after(m.since, limits_.idle_timeout);
      after(m.proven, limits_.healthcheck_interval);
    }
    if (m.phase == idle || (m.phase == lent && !m.old)) until(m.expires);
  }
  const bool somebody_waits = waiting() > 0;
  const bool wants_open = somebody_waits || members_.size() - in_phase(closing) < limits_.min_size;
  if (wants_open && !draining_ && backoff_until_ > settled_at_) until(backoff_until_);
  for (const auto& [who, h] : holders_) {
    if (h.unacknowledged > 0) until(h.asked_at + limits_.recall_deadline);
    if (!somebody_waits || h.leases == h.recalled) continue;
    const auto lull_over = h.quiet_since + std::max<duration>(h.quiet_for, limits_.quiet);
    if (h.waiting == 0 && lull_over > settled_at_) until(lull_over);
    if (h.lent_at + limits_.slice > settled_at_) until(h.lent_at + limits_.slice);
  }
  if (first == time_point::max()) return std::nullopt;
  return first;
}

}  // namespace pgsled::pooler
