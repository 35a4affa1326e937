#include "services/frontend/leases/local_pool.hpp"

#include <algorithm>

#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {
// A lease that nobody has used for this long goes back, so that the pooler can check, age and
// close connections and others can have them.
constexpr auto idle_give_back = std::chrono::seconds(1);
// While clients wait, a changed demand is told at most this often.
constexpr auto demand_interval = std::chrono::milliseconds(20);
constexpr auto demand_repeat = std::chrono::milliseconds(250);
// With more connections at work the processors have enough to do without a worker that looks.
constexpr std::uint64_t most_in_use_to_look = 1;
pg_error gone() {
  return {"57P01", "the server, database or user is not in the configuration any more",
          "Begin the transaction again.", {}};
}

}  // namespace

std::string server_statement_name(const lease::statement_id& id) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string name(server_statement_prefix);
  for (const auto byte : id) {
    name.push_back(hex[byte >> 4]);
    name.push_back(hex[byte & 15]);
  }
  return name;
}

lease::statement_id statement_id_of(std::string_view name) {
  lease::statement_id id{};
  name.remove_prefix(std::min(name.size(), server_statement_prefix.size()));
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (std::size_t i = 0; i < id.size() && 2 * i + 1 < name.size(); ++i) {
    id[i] = static_cast<std::uint8_t>(digit(name[2 * i]) << 4 | digit(name[2 * i + 1]));
  }
  return id;
}

local_pool::local_pool(worker& w, snapshot::pool description)
    : worker_(w), description_(std::move(description)) {}

local_pool::~local_pool() = default;

void local_pool::update(snapshot::pool description) {
  description_ = std::move(description);
  withdrawn_ = false;
  told_demand_ = 0;
  tell_demand();
}

void local_pool::withdraw() {
  withdrawn_ = true;
  failed(gone());
  while (!idle_.empty()) hand_back(*idle_.back(), lease::condition::clean);
}

server* local_pool::take(lease_waiter* who, bool holds_others) {
  while ((waiters_.empty() || (holds_others && !waiters_.front().holds_others)) &&
         !idle_.empty()) {
    server* lent = idle_.back();
    idle_.pop_back();
    count();
    if (!lent->usable()) {
      hand_back(*lent, lease::condition::broken);
      continue;
    }
    ++stats.assignments;
    return lent;
  }
  const waiter last{who, worker_.loop().now(), holds_others};
  if (holds_others) {
    waiters_.insert(first_without(), last);
  } else {
    waiters_.push_back(last);
  }
  worker_.counters().clients_waiting.add();
  if (withdrawn_) {   // nobody lends for it any more
    worker_.schedule([this, alive = weak_from_this()] {
      const auto self = alive.lock();
      if (self && withdrawn_) failed(gone());
    });
    return nullptr;
  }
  if (told_demand_ == 0 || waiters_.size() >= 2 * std::size_t{told_demand_}) tell_demand();
  return nullptr;
}

// The first of those who hold nothing: they have waited for longer than who is behind.
std::deque<local_pool::waiter>::iterator local_pool::first_without() {
  return std::find_if(waiters_.begin(), waiters_.end(),
                      [](const waiter& w) { return !w.holds_others; });
}

void local_pool::forget(lease_waiter* who) {
  const auto gone = std::erase_if(waiters_, [&](const auto& w) { return w.who == who; });
  worker_.counters().clients_waiting.subtract(gone);
}

void local_pool::tell_demand() {
  const auto wanted = static_cast<std::uint32_t>(std::min<std::size_t>(waiters_.size(), 1'000'000));
  if (wanted == told_demand_) return;
  told_demand_ = wanted;
  told_at_ = worker_.loop().now();
  const auto oldest = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(longest_wait(told_at_)).count());
  const auto map_epoch = worker_.map_epoch(description_.database);
  for (const auto& target : description_.targets) {
    if (target.budget == 0) continue;
    worker_.tell_pooler(target.pooler, lease::demand{description_.id, wanted, worker_.epoch(),
                                                     oldest, map_epoch});
  }
}

void local_pool::channel_up() {
  told_demand_ = 0;
  tell_demand();
}

void local_pool::release(server& lent) {
  lent.detach();
  if (lent.cancelling && !lent.orphan) return;  // cancel_done brings it here again
  if (!lent.usable() || !lent.quiet()) {
    hand_back(lent, lease::condition::broken);
  } else if (lent.dirty) {
    hand_back(lent, lease::condition::dirty);
  } else if (lent.retiring || withdrawn_ || lent.orphan) {
    hand_back(lent, lease::condition::clean);
  } else if (const auto recall = recalled_.find(lent.pooler());
             recall != recalled_.end() && recall->second > 0) {
    --recall->second;
    hand_back(lent, lease::condition::clean);
  } else {
    next_or_idle(lent);
  }
}

void local_pool::next_or_idle(server& lent) {
  lent.idle_since = worker_.loop().now();
  idle_.push_back(&lent);
  count();
  if (!waiters_.empty()) worker_.schedule([this] {
    while (!waiters_.empty() && !idle_.empty()) {
      server* next = idle_.back();
      idle_.pop_back();
      count();
      if (!next->usable()) {
        hand_back(*next, lease::condition::broken);
        continue;
      }
      const waiter first = waiters_.front();
      waiters_.pop_front();
      worker_.counters().clients_waiting.subtract();
      ++stats.assignments;
      const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(
          worker_.loop().now() - first.since);
      stats.wait_us += static_cast<std::uint64_t>(waited.count());
      worker_.counters().wait.observe_us(static_cast<std::uint64_t>(waited.count()));
      first.who->granted(*next);
    }
  });
}

void local_pool::add(const std::string& pooler, lease::grant&& granted,
                     std::unique_ptr<server_stream> stream) {
  worker_.counters().leases_granted.add();
  // A pooler takes what it lends off the demand it was told.
  if (told_demand_ > 0) --told_demand_;
  servers_.push_back(
      std::make_unique<server>(worker_, *this, pooler, std::move(granted), std::move(stream)));
  next_or_idle(*servers_.back());
}

void local_pool::recall(const std::string& pooler, std::uint32_t wanted) {
  // More than there is cannot come back: a voluntary return may have crossed the recall.
  const auto held = std::count_if(servers_.begin(), servers_.end(), [&](const auto& s) {
    return !s->orphan && s->pooler() == pooler;
  });
  auto& owed = recalled_[pooler];
  owed = std::min(wanted, static_cast<std::uint32_t>(held));
  for (std::size_t i = 0; i < idle_.size() && owed > 0;) {
    if (idle_[i]->pooler() == pooler && !idle_[i]->orphan) {
      --owed;
      hand_back(*idle_[i], lease::condition::clean);  // takes it out of idle_
    } else {
      ++i;
    }
  }
  worker_.tell_pooler(pooler, lease::recall_ack{description_.id});
}

void local_pool::retire(server& lent) {
  lent.retiring = true;
  if (std::find(idle_.begin(), idle_.end(), &lent) != idle_.end()) {
    hand_back(lent, lease::condition::clean);
  }
}

void local_pool::failed(const pg_error& why) {
  const auto waiters = std::exchange(waiters_, {});
  worker_.counters().clients_waiting.subtract(waiters.size());
  for (const auto& w : waiters) w.who->not_granted(why);
  tell_demand();
}

void local_pool::cancel_done(server& lent) {
  lent.cancelling = false;
  if (lent.user() == nullptr) release(lent);
}

server* local_pool::find(const std::string& pooler, lease::lease_id id) {
  for (const auto& s : servers_) {
    if (s->id() == id && !s->orphan && s->pooler() == pooler) return s.get();
  }
  return nullptr;
}

void local_pool::pooler_gone(const std::string& pooler, bool sockets_live) {
  recalled_.erase(pooler);
  told_demand_ = 0;
  std::vector<server*> lost;
  for (const auto& s : servers_) {
    if (s->pooler() != pooler || s->orphan) continue;
    s->orphan = true;
    if (s->user() == nullptr) {
      lost.push_back(s.get());
    } else if (!sockets_live) {
      s->cut();
    }
  }
  for (auto* s : lost) erase(*s);
}

void local_pool::pooler_forgotten(const std::string& pooler) {
  recalled_.erase(pooler);
  told_demand_ = 0;
  std::vector<server*> its;
  for (const auto& s : servers_) {
    if (s->pooler() == pooler && !s->orphan) its.push_back(s.get());
  }
  for (auto* s : its) {
    s->unheard = true;
    // What it had to do for these stands still: their bytes, or a cancel that may come at any time.
    if (s->user() != nullptr && (s->pumped() || s->cancelling)) {
      s->cut();
    } else {
      retire(*s);
    }
  }
}

void local_pool::pooler_heard(const std::string& pooler) {
  for (const auto& s : servers_) {
    if (s->pooler() == pooler) s->unheard = false;
  }
}

bool local_pool::has_leases_of(const std::string& pooler) const {
  return std::any_of(servers_.begin(), servers_.end(),
                     [&](const auto& s) { return !s->orphan && s->pooler() == pooler; });
}

std::uint32_t local_pool::orphans_of(const std::string& pooler) const {
  return static_cast<std::uint32_t>(
      std::count_if(servers_.begin(), servers_.end(),
                    [&](const auto& s) { return s->orphan && s->pooler() == pooler; }));
}

void local_pool::hand_back(server& lent, lease::condition condition) {
  // Half a message that came while it was idle, or anything else that does not travel.
  if (condition == lease::condition::clean && (!lent.usable() || !lent.quiet())) {
    condition = lease::condition::broken;
  }
  if (condition == lease::condition::broken) worker_.counters().leases_broken.add();
  const bool orphan = lent.orphan;
  const std::string pooler = lent.pooler();
  if (!orphan) {
    auto back = lent.hand_over(condition);
    erase(lent);  // deregisters the descriptor before the pooler may use it again
    worker_.tell_pooler(pooler, std::move(back));
  } else {
    erase(lent);
    worker_.tell_pooler(pooler, lease::orphans_left{description_.id, orphans_of(pooler)});
  }
}

void local_pool::remove(server& lent) {
  lent.mark_broken();
  hand_back(lent, lease::condition::broken);
}

void local_pool::erase(server& lent) {
  std::erase(idle_, &lent);
  std::erase_if(servers_, [&](const auto& s) { return s.get() == &lent; });
  count();
}

// At each lending and return, whatever number of pools there is.
void local_pool::count() {
  auto& to = worker_.counters();
  to.leases.add(servers_.size() - std::exchange(counted_, servers_.size()));
  to.leases_idle.add(idle_.size() - std::exchange(counted_idle_, idle_.size()));
  worker_.loop().may_look(to.leases.get() - to.leases_idle.get() <= most_in_use_to_look);
}

std::size_t local_pool::idle_in_transaction() const {
  return static_cast<std::size_t>(
      std::count_if(servers_.begin(), servers_.end(), [](const auto& s) {
        return s->user() != nullptr && s->ledger.empty() && s->ledger.status() != 'I';
      }));
}

net::duration local_pool::longest_wait(net::time_point now) const {
  net::duration longest{};
  for (const waiter& one : waiters_) {
    longest = std::max(longest, now - one.since);
    if (!one.holds_others) break;
  }
  return longest;
}

void local_pool::tick(net::time_point now) {
  const auto timeout = std::chrono::milliseconds(worker_.settings().checkout_timeout);
  std::vector<lease_waiter*> late;
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    if (now - at->since >= timeout) {
      late.push_back(at->who);
      at = waiters_.erase(at);
    } else if (at->holds_others) {
      ++at;
    } else {
      break;
    }
  }
  worker_.counters().clients_waiting.subtract(late.size());
  worker_.counters().checkout_timeouts.add(late.size());
  for (auto* one : late) one->not_granted(worker_.why_no_lease(*this));
  if (now - told_at_ >= demand_interval) {
    // Said again now and then while somebody waits, so that nothing lost can starve a client.
    if (!waiters_.empty() && now - told_at_ >= demand_repeat) told_demand_ = 0;
    tell_demand();
  }
  for (std::size_t i = 0; i < idle_.size();) {
    if (now - idle_[i]->idle_since >= idle_give_back) {
      hand_back(*idle_[i], lease::condition::clean);
    } else {
      ++i;
    }
  }
}

}  // namespace pgsled::frontend
