#include "services/frontend/shards/transaction.hpp"

#include <algorithm>

#include "services/frontend/shards/leg.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

constexpr std::string_view isolation_sql =
    "SELECT pg_catalog.current_setting('transaction_isolation')";

// One text for each leg, whose answer is none but a tag.
struct plain_text final : conversation {
  explicit plain_text(std::function<std::string(std::uint32_t)> from) : text(std::move(from)) {}
  speech say(std::uint32_t shard) override {
    speech to;
    wire::write_query(to.bytes, text(shard));
    to.owed.push_back(session::owed::query);
    return to;
  }
  void heard(char, byte_span) override {}
  std::optional<pg_error> answered(std::uint32_t) override { return std::nullopt; }
  std::function<std::string(std::uint32_t)> text;
};

}  // namespace

shard_transaction::shard_transaction(worker& w, endpoint_ref endpoint, std::uint32_t client,
                                     session::pair_set_ref settings, bool isolated,
                                     std::function<void(const pg_error&)> on_lost)
    : worker_(w),
      endpoint_(std::move(endpoint)),
      settings_(std::move(settings)),
      on_lost_(std::move(on_lost)),
      mark_{client, static_cast<std::uint32_t>(
                        std::chrono::duration_cast<std::chrono::milliseconds>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count() &
                        0x7fffffff)},
      isolated_(isolated) {}

shard_transaction::~shard_transaction() {
  worker_.gate().leave(*this);
  worker_.loop().cancel(timer_);
  if (kept_) legs_[kept_shard_] = std::move(kept_);
  for (auto& [shard, one] : legs_) {
    if (one->waiting) endpoint_->pools[shard]->forget(one.get());
    if (auto* lease = std::exchange(one->lease, nullptr)) lease->pool().release(*lease);
  }
}

std::int64_t shard_transaction::now() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             worker_.loop().now().time_since_epoch())
      .count();
}

void shard_transaction::later(std::function<void()> task) {
  worker_.schedule([alive = std::weak_ptr<int>(alive_), task = std::move(task)] {
    if (!alive.expired()) task();
  });
}

bool shard_transaction::any_running() const {
  return std::any_of(legs_.begin(), legs_.end(), [](const auto& one) {
    return one.second->running || one.second->waiting;
  });
}

std::vector<std::uint32_t> shard_transaction::shards() const {
  std::vector<std::uint32_t> all;
  for (const auto& [shard, one] : legs_) all.push_back(shard);
  return all;
}

// Legs

void shard_transaction::adopt(server& lent, bool wrote) {
  const auto shard = lent.pool().description().shard;
  auto& one = legs_[shard];
  PGSLED_ASSERT(!one);
  one = std::make_unique<leg>(*this, shard);
  one->lease = &lent;
  one->wrote = wrote;
  one->begun = lent.ledger.status() != 'I';
  rows_ = rows_ || wrote;
  lent.pass_to(one.get());
  if (!parameters_) parameters_ = lent.parameters;
}

server& shard_transaction::lend(std::uint32_t shard, server_user& to) {
  auto& one = *legs_.at(shard);
  PGSLED_ASSERT(one.lease != nullptr && !one.away && !one.running);
  one.away = true;
  one.lease->pass_to(&to);
  return *one.lease;
}

void shard_transaction::park(std::uint32_t shard) {
  auto& one = *legs_.at(shard);
  PGSLED_ASSERT(one.lease != nullptr && one.away && one.lease->ledger.empty());
  one.away = false;
  one.carry.clear();
  one.lease->pass_to(&one);
}

void shard_transaction::lost_lent(std::uint32_t shard) {
  auto& one = *legs_.at(shard);
  PGSLED_ASSERT(one.away);
  one.lease = nullptr;   // deleted by who has called
  forget(one);
}

void shard_transaction::wrote(std::uint32_t shard) {
  legs_.at(shard)->wrote = true;
  rows_ = true;
}

void shard_transaction::defined() {
  for (auto& [shard, one] : legs_) one->wrote = true;
  defined_ = true;
}

void shard_transaction::cannot_prepare(std::uint32_t shard, std::string why) {
  legs_.at(shard)->unpreparable = std::move(why);
}

void shard_transaction::keep(std::uint32_t shard) {
  PGSLED_ASSERT(!keeps_ || kept_shard_ == shard);
  keeps_ = true;
  kept_shard_ = shard;
}

server* shard_transaction::take_kept() {
  if (!kept_) return nullptr;
  auto* lease = std::exchange(kept_->lease, nullptr);
  kept_.reset();
  if (lease != nullptr) lease->pass_to(nullptr);
  return lease;
}

void shard_transaction::settings_are(const session::pair_set_ref& settings, bool unknown) {
  for (auto& [shard, one] : legs_) {
    if (unknown) one->lease->settings_unknown = true;
    if (!one->lease->settings_unknown) one->lease->settings = settings;
  }
}

void shard_transaction::join(std::vector<std::uint32_t> shards, std::string script, done then) {
  PGSLED_ASSERT(!busy());
  what_ = work::joining;
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  script_ = std::move(script);
  error_.reset();
  std::sort(shards.begin(), shards.end());
  for (const std::uint32_t shard : shards) {
    if (!has(shard)) joining_.push_back(shard);
  }
  for (auto& [shard, one] : legs_) {
    one->joins = false;
    if (!one->begun) begin(*one);
  }
  if (isolated_ && legs_.size() + joining_.size() > 1) {
    for (auto& [shard, one] : legs_) {
      if (one->checked) continue;
      one->checked = true;
      one->ask(mark_sql().append(";").append(isolation_sql));
    }
  }
  acquire_next();
}

// One wait at a time, in shard order: two that want the same shards never wait for each other.
void shard_transaction::acquire_next() {
  while (!joining_.empty()) {
    const auto shard = joining_.front();
    joining_.erase(joining_.begin());
    auto* pool = shard < endpoint_->pools.size() ? endpoint_->pools[shard] : nullptr;
    auto& one = legs_[shard];
    one = std::make_unique<leg>(*this, shard);
    if (pool == nullptr) {
      return not_granted(*one, pg_error{"57P03", "shard " + std::to_string(shard) +
                                                     " of database \"" + endpoint_->database.name +
                                                     "\" has no host",
                                        "Add it to pgdog.toml and reload.", {}});
    }
    one->waiting = true;
    waits_since_ = worker_.loop().now();
    // Who holds connections already goes before those who hold none.
    server* lent = pool->take(one.get(), legs_.size() > 1);
    if (lent == nullptr) {
      if (legs_.size() > 1) worker_.gate().enter(*this);
      return;
    }
    return one->granted(*lent);
  }
  if (!any_running()) finish(error_.get());
}

local_pool* shard_transaction::waits_for() const {
  for (const auto& [shard, one] : legs_) {
    if (one->waiting) return endpoint_->pools[shard];
  }
  return nullptr;
}

std::vector<local_pool*> shard_transaction::holds() const {
  std::vector<local_pool*> held;
  for (const auto& [shard, one] : legs_) {
    if (one->lease != nullptr) held.push_back(&one->lease->pool());
  }
  return held;
}

void shard_transaction::give_up(const pg_error& why) {
  for (auto& [shard, one] : legs_) {
    if (!one->waiting) continue;
    one->waiting = false;
    endpoint_->pools[shard]->forget(one.get());
    return not_granted(*one, why);
  }
}

void shard_transaction::granted(leg& one) {
  worker_.gate().leave(*this);
  auto& lease = *one.lease;
  if (endpoint_->mode == pool_mode::session) lease.dirty = true;
  if (!parameters_) parameters_ = lease.parameters;
  if (error_) {   // the lease came when it was too late
    joining_.clear();
    auto* unused = std::exchange(one.lease, nullptr);
    forget(one);
    unused->pool().release(*unused);
    return acquire_next();
  }
  const auto settings = lease.settings_unknown ? session::full_application(*settings_)
                        : lease.settings != settings_
                            ? session::difference(*lease.settings, *settings_)
                            : std::string();
  if (!settings.empty()) {
    worker_.counters().settings_applied.add();
    const auto* applied = lease.settings_unknown ? nullptr : lease.settings.get();
    const auto first = session::encoding_before(applied, *settings_, settings);
    if (!first.empty()) one.ask(first);
    one.ask(settings);
  }
  one.joins = true;
  begin(one);
  lease.settings = settings_;
  lease.settings_unknown = false;
  acquire_next();
}

void shard_transaction::begin(leg& one) {
  one.begun = true;
  one.checked = isolated_;
  auto sql = script_ + ";" + mark_sql();
  if (isolated_) sql.append(";").append(isolation_sql);
  one.ask(sql);
}

void shard_transaction::not_granted(leg& one, const pg_error& why) {
  worker_.gate().leave(*this);
  if (!error_) error_ = std::make_unique<pg_error>(why);
  joining_.clear();
  forget(one);
  if (!any_running()) finish(error_.get());
}

// Out of legs_, but maybe still on the stack.
void shard_transaction::forget(leg& one) {
  const auto found = legs_.find(one.shard);
  PGSLED_ASSERT(found != legs_.end() && found->second.get() == &one);
  gone_.push_back(std::move(found->second));
  legs_.erase(found);
  later([this] { gone_.clear(); });
}

void shard_transaction::release(leg& one) {
  auto* lease = one.lease;
  if (lease != nullptr) {
    // PREPARE TRANSACTION keeps what was set, whatever becomes of the rows.
    if (!lease->settings_unknown) lease->settings = one.tag == "ROLLBACK" ? settings_ : committed_;
    parameters_ = lease->parameters;
  }
  if (lease != nullptr && keeps_ && one.shard == kept_shard_) {
    const auto found = legs_.find(one.shard);
    kept_ = std::move(found->second);
    legs_.erase(found);
    return;
  }
  one.lease = nullptr;
  forget(one);
  if (lease != nullptr) lease->pool().release(*lease);
}

// What has just joined must not be found after a ROLLBACK TO. One leg is left at least.
void shard_transaction::leave_joined() {
  std::vector<leg*> joined;
  for (auto& [shard, one] : legs_) {
    if (one->joins) joined.push_back(one.get());
  }
  if (joined.size() == legs_.size()) {
    const auto has_settings = [](const leg* one) { return !one->lease->settings_unknown; };
    joined.erase(std::find_if(joined.begin(), joined.end(), has_settings));
  }
  for (auto* one : joined) drop(*one);
}

// Without the session's settings, or what the transaction has begun with, nothing may run there: not
// behind a ROLLBACK TO either. True: there is no shard where it may.
bool shard_transaction::lacks_settings() const {
  return std::all_of(legs_.begin(), legs_.end(), [](const auto& one) {
    return one.second->joins && one.second->lease->settings_unknown;
  });
}

void shard_transaction::lose(const pg_error& why) {
  what_ = work::nothing;
  ended_ = {};
  later([this, why] {
    if (const auto tell = std::exchange(on_lost_, {})) tell(why);
  });
}

void shard_transaction::drop(leg& one) {
  auto* lease = std::exchange(one.lease, nullptr);
  forget(one);
  if (lease == nullptr) return;
  lease->mark_broken();
  lease->pool().release(*lease);
}

void shard_transaction::leg_lost(leg& one, const pg_error& why) {
  if (kept_.get() == &one) return;
  const bool asked = std::exchange(one.running, false);
  const auto shard = one.shard;
  forget(one);
  switch (what_) {
    case work::committing: return perform(coordinator_->lost(shard, why.message, now()));
    case work::rolling_back:
      if (legs_.empty()) finish(error_.get());
      return;
    case work::one_by_one:
      if (asked || any_running()) {
        return undo({"08007",
                     "shard " + std::to_string(shard) + " was lost while one shard committed after "
                     "the other; what was asked to may have: " + why.message, {},
                     "Look at the shards before you say it again."});
      }
      [[fallthrough]];
    case work::asking:
      return undo({"08006", "the transaction was rolled back: shard " + std::to_string(shard) +
                                ": " + why.message, {}, {}});
    default: break;
  }
  lose(why);
}

void shard_transaction::leg_done(leg& one) {
  if (!legs_.empty() && legs_.begin()->second.get() == &one) parameters_ = one.lease->parameters;
  switch (what_) {
    case work::nothing: return;
    case work::joining:
      if (one.error) {
        one.lease->settings_unknown = one.lease->dirty = true;
        if (!error_) error_ = std::move(one.error);
      } else if (isolated_ && one.checked && !one.value.starts_with("read ") && !error_) {
        error_ = std::make_unique<pg_error>(pg_error{
            "0A000",
            "a transaction at isolation level " + one.value + " cannot go to a second shard",
            "Each shard would have a snapshot of its own: use READ COMMITTED, or keys of one "
            "shard.",
            {}});
      }
      if (joining_.empty() && !any_running()) {
        if (error_ && lacks_settings()) return lose(*error_);
        if (error_) leave_joined();
        finish(error_.get());
      }
      return;
    case work::telling:
      if (one.error && !error_) error_ = std::move(one.error);
      if (any_running()) return;
      tags_ = legs_.begin()->second->tags;
      return finish(error_.get());
    case work::in_order: {
      if (one.error) return finish(one.error.get());
      if (at_ == 1) tags_ = one.tags;
      const auto why = talk_->answered(one.shard);
      return why ? finish(&*why) : next_in_order();
    }
    case work::asking:
      if (!one.wrote) {
        one.wrote = one.error != nullptr || one.value != "f";
      } else if (one.error || one.value != "t") {
        cannot_prepare_ = one.where();
      }
      if (!any_running()) decide();
      return;
    case work::one_by_one:
      if (one.error || one.tag == "ROLLBACK") {
        return undo(one.error ? *one.error
                              : pg_error{"40000", "the transaction was rolled back on " +
                                                      one.where(), {}, {}});
      }
      release(one);
      return commit_next();
    case work::committing:
      if (one.error) explain(one);
      return perform(one.error ? coordinator_->failed(one.shard, *one.error, now())
                               : coordinator_->completed(one.shard, one.tag, one.value, now()));
    case work::rolling_back:
      if (one.error) {
        drop(one);
      } else {
        release(one);
      }
      if (legs_.empty()) finish(error_.get());
      return;
  }
}

void shard_transaction::tell(std::string sql, done then) {
  PGSLED_ASSERT(!busy() && !legs_.empty());
  what_ = work::telling;
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  error_.reset();
  for (auto& [shard, one] : legs_) one->ask(sql);
}

std::uint32_t shard_transaction::failed_leg() const {
  for (const auto& [shard, one] : legs_) {
    if (one->lease->ledger.status() == 'E') return shard;
  }
  return legs_.begin()->first;
}

void shard_transaction::tell_in_order(std::function<std::string(std::uint32_t)> text, done then) {
  converse(shards(), std::make_shared<plain_text>(std::move(text)), std::move(then));
}

void shard_transaction::converse(std::vector<std::uint32_t> shards,
                                 std::shared_ptr<conversation> talk, done then) {
  PGSLED_ASSERT(!busy() && !legs_.empty());
  what_ = work::in_order;
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  talk_ = std::move(talk);
  order_ = std::move(shards);
  at_ = 0;
  next_in_order();
}

void shard_transaction::next_in_order() {
  if (at_ == order_.size()) return finish(nullptr);
  const auto shard = order_[at_++];
  legs_.at(shard)->ask(talk_->say(shard));
}

void shard_transaction::finish(const pg_error* why, const std::string& warning) {
  what_ = work::nothing;
  talk_.reset();
  auto tell = std::exchange(ended_, {});
  std::shared_ptr<pg_error> error = why != nullptr ? std::make_shared<pg_error>(*why) : nullptr;
  error_.reset();
  later([tell = std::move(tell), error, warning] {
    if (tell) tell(error.get(), warning);
  });
}

pg_error shard_transaction::deadlock() {
  return {"40P01", "deadlock detected",
          "Repeat the transaction, with its statements for different shards in an order that all "
          "keep to.",
          "Transactions over several shards waited for each other; this was the youngest of them."};
}

void shard_transaction::forget_client() {
  ended_ = {};
  on_lost_ = {};
}

void shard_transaction::cancel() {
  if (what_ == work::asking || what_ == work::committing || what_ == work::one_by_one ||
      what_ == work::rolling_back) return;
  if (waits_for() != nullptr) {
    return give_up(take_victim() ? deadlock()
                                 : pg_error{"57014", "canceling statement due to user request",
                                            {}, {}});
  }
  for (auto& [shard, one] : legs_) {
    auto* lease = one->lease;
    if (!one->running || lease == nullptr || lease->cancelling || lease->orphan || lease->unheard)
      continue;
    lease->cancelling = true;
    worker_.tell_pooler(lease->pooler(), lease::cancel{lease->id(), lease->generation()});
  }
}

}  // namespace pgsled::frontend
