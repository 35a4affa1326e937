#include "services/frontend/shard_transaction.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "common/auth/scram.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

namespace {

// The beginning of an answer that is not whole yet; nothing that is asked here has a long one.
constexpr std::size_t max_carry = 256 * 1024;
constexpr std::size_t max_asides = 64 * 1024;

constexpr std::string_view isolation_sql =
    "SELECT pg_catalog.current_setting('transaction_isolation')";
constexpr std::string_view can_prepare_sql =
    "SELECT pg_catalog.current_setting('max_prepared_transactions')::int > 0 AND "
    "pg_catalog.to_regprocedure('pgsled.decide(text,text,integer[])') IS NOT NULL";
constexpr std::string_view has_written_sql =
    "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL";

std::string new_id() {
  const auto random = auth::random_bytes(16);
  std::array<std::uint8_t, 16> bytes{};
  std::copy(random.begin(), random.end(), bytes.begin());
  return commit::make_id(bytes);
}

}  // namespace

struct shard_transaction::leg final : lease_waiter, server_user {
  leg(shard_transaction& t, std::uint32_t n) : owner(t), shard(n) {}

  void granted(server& lent) override {
    waiting = false;
    lease = &lent;
    lent.attach(this);
    owner.granted(*this);
  }
  void not_granted(const pg_error& why) override {
    waiting = false;
    owner.not_granted(*this, why);
  }
  void from_server(byte_span bytes) override {
    carry.append(as_text(bytes));
    std::size_t at = 0;
    wire::frame frame;
    while (wire::peek(as_bytes(carry).subspan(at), frame) == wire::frame_state::complete &&
           carry.size() - at >= frame.total()) {
      read(frame.type, as_bytes(carry).subspan(at + wire::header_size, frame.length),
           std::string_view(carry).substr(at, frame.total()));
      at += frame.total();
    }
    carry.erase(0, at);
    if (carry.size() > max_carry) lease->mark_broken();
  }
  void read(char type, byte_span body, std::string_view whole) {
    namespace be = wire::backend;
    if (type == be::command_complete) {
      tag = as_text(body.first(body.empty() ? 0 : body.size() - 1));
      if (!tags.empty()) tags.push_back('\0');
      tags += tag;
    } else if (type == be::data_row && body.size() >= 6) {
      const auto length = load_be<std::uint32_t>(body.data() + 2);
      if (length <= body.size() - 6) value = as_text(body.subspan(6, length));
    } else if (type == be::notice_response || type == be::notification_response) {
      if (owner.asides_.size() + whole.size() <= max_asides) owner.asides_ += whole;
    }
  }
  void statement_done(const sql::statement*, std::string_view, bool) override {}
  void server_error(byte_span body, bool) override {
    if (error) return;
    error = std::make_unique<pg_error>();
    if (const auto fields = wire::read_error(body)) {
      *error = {std::string(fields->sqlstate), std::string(fields->message),
                std::string(fields->hint), std::string(fields->detail)};
    }
    if (error->sqlstate == "57014" && owner.take_victim()) *error = deadlock();
  }
  void entry_dropped(const session::entry&) override {}
  void server_parameter(std::string_view, std::string_view, bool) override {}
  void server_ready(char, bool) override {}
  void server_read_done() override {
    if (!lease->usable()) {
      const pg_error why = error ? *error : pg_error{"57P01", "the server ended the connection",
                                                     {}, {}};
      auto* dead = std::exchange(lease, nullptr);
      dead->pool().release(*dead);
      return owner.leg_lost(*this, why);
    }
    if (!running || !lease->ledger.empty()) return;
    running = false;
    owner.leg_done(*this);
  }
  void server_lost(const pg_error& why) override {
    lease = nullptr;
    owner.leg_lost(*this, why);
  }
  bool wants_more() const override { return true; }
  void server_drained() override {}

  // As one message: an error ends all of it.
  void ask(std::string_view sql) {
    PGSLED_ASSERT(lease != nullptr && !away);
    running = true;
    error.reset();
    tag.clear();
    tags.clear();
    value.clear();
    std::string bytes;
    wire::write_query(bytes, sql);
    lease->ledger.add({session::owed::query});
    lease->unnamed.reset();
    lease->send(bytes);
  }
  std::string where() const {
    return "shard " + std::to_string(shard) +
           (lease != nullptr ? " (" + lease->pool().where() + ")" : "");
  }

  shard_transaction& owner;
  std::uint32_t shard;
  server* lease = nullptr;
  std::unique_ptr<pg_error> error;
  std::string tag, tags, value, carry, unpreparable;
  bool waiting = false, running = false;
  bool wrote = false, away = false, checked = false, begun = false;
};

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
    one.ask(settings);
  }
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

void shard_transaction::drop(leg& one) {
  auto* lease = std::exchange(one.lease, nullptr);
  forget(one);
  if (lease == nullptr) return;
  lease->mark_broken();
  lease->pool().release(*lease);
}

void shard_transaction::leg_lost(leg& one, const pg_error& why) {
  if (kept_.get() == &one) return;
  one.running = false;
  const auto shard = one.shard;
  forget(one);
  switch (what_) {
    case work::committing: return perform(coordinator_->lost(shard, why.message, now()));
    case work::rolling_back:
      if (legs_.empty()) finish(error_.get());
      return;
    case work::asking:
    case work::one_by_one:
      return undo({"08006", "the transaction was rolled back: shard " + std::to_string(shard) +
                                ": " + why.message, {}, {}});
    default: break;
  }
  what_ = work::nothing;
  ended_ = {};
  later([this, why] {
    if (const auto tell = std::exchange(on_lost_, {})) tell(why);
  });
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
      if (joining_.empty() && !any_running()) finish(error_.get());
      return;
    case work::telling:
      if (one.error && !error_) error_ = std::move(one.error);
      if (any_running()) return;
      tags_ = legs_.begin()->second->tags;
      return finish(error_.get());
    case work::in_order:
      if (one.error) return finish(one.error.get());
      if (at_ == 1) tags_ = one.tags;
      return next_in_order();
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
  PGSLED_ASSERT(!busy() && !legs_.empty());
  what_ = work::in_order;
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  text_ = std::move(text);
  order_ = shards();
  at_ = 0;
  next_in_order();
}

void shard_transaction::next_in_order() {
  if (at_ == order_.size()) return finish(nullptr);
  const auto shard = order_[at_++];
  legs_.at(shard)->ask(text_(shard));
}

// The end

void shard_transaction::rollback(done then) {
  PGSLED_ASSERT(!busy());
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  error_.reset();
  what_ = work::rolling_back;
  if (legs_.empty()) return finish(nullptr);
  for (auto& [shard, one] : legs_) one->ask("ROLLBACK");
}

// Nothing has been decided, and nothing will be.
void shard_transaction::undo(const pg_error& why) {
  if (!error_) error_ = std::make_unique<pg_error>(why);
  if (what_ == work::one_by_one && at_ > 1) {
    error_->detail = "It has been committed on " + std::to_string(at_ - 1) + " of " +
                     std::to_string(order_.size()) + " shards already.";
    error_->hint = "Bring the other shards to the same state by hand.";
  }
  what_ = work::rolling_back;
  if (legs_.empty()) return finish(error_.get());
  // What a leg is still asked is answered before that, and ignored.
  for (auto& [shard, one] : legs_) one->ask("ROLLBACK");
}

void shard_transaction::commit(session::pair_set_ref settings, commit_mode mode, ended then) {
  PGSLED_ASSERT(!busy() && !legs_.empty());
  mode_ = mode;
  what_ = work::asking;
  committed_ = std::move(settings);
  ended_ = std::move(then);
  error_.reset();
  ended_ = [&counters = worker_.counters(), told = std::move(ended_)](const pg_error* why,
                                                                      const std::string& warning) {
    (why == nullptr ? counters.shard_commits : counters.shard_commits_failed).add();
    if (told) told(why, warning);
  };
  ask_what_wrote();
}

void shard_transaction::ask_what_wrote() {
  // A cancel of the client's that is on its way must have come before anything is decided. The
  // pooler ends it within seconds.
  const bool cancelling = std::any_of(legs_.begin(), legs_.end(), [](const auto& one) {
    return one.second->lease->cancelling && !one.second->lease->orphan;
  });
  if (cancelling) {
    timer_ = worker_.loop().after(std::chrono::milliseconds(2), [this] {
      timer_ = 0;
      auto& owner = worker_;
      if (what_ == work::asking) ask_what_wrote();
      owner.run_scheduled();
    });
    return;
  }
  for (auto& [shard, one] : legs_) {
    if (legs_.size() == 1) break;
    if (one->wrote) {
      // Rows must not be on some shards only, whatever the reason: then it is an error.
      if (defined_ && !rows_ && mode_ == commit_mode::atomic) one->ask(can_prepare_sql);
    } else {
      one->ask(has_written_sql);
    }
  }
  if (!any_running()) decide();
}

void shard_transaction::decide() {
  std::vector<commit::participant> all;
  std::size_t writers = 0;
  for (auto& [shard, one] : legs_) {
    const bool writes = one->wrote || legs_.size() == 1;
    writers += writes ? 1 : 0;
    // Who has only read is committed plainly, whatever it has used.
    all.push_back({shard, writes, writes ? one->unpreparable : std::string()});
  }
  if (writers > 1 && mode_ == commit_mode::refused && !(defined_ && !rows_)) {
    return undo({"0A000",
                 "the transaction has written on several shards and two_phase_commit is off",
                 "Set two_phase_commit = true, or cross_shard_writes = \"best_effort\" in "
                 "[pgsled] to commit on one shard after the other.",
                 {}});
  }
  if (writers > 1 && (mode_ != commit_mode::atomic || !cannot_prepare_.empty())) {
    what_ = work::one_by_one;
    order_ = shards();
    at_ = 0;
    return commit_next();
  }
  const auto who = commit::choose(all);
  if (!who) return undo(who.error());
  what_ = work::committing;
  coordinator_ =
      std::make_unique<commit::coordinator>(*who, endpoint_->database.name, new_id());
  perform(coordinator_->begin(now()));
}

void shard_transaction::commit_next() {
  if (at_ < order_.size()) return legs_.at(order_[at_++])->ask("COMMIT");
  finish(nullptr, cannot_prepare_.empty()
                      ? ""
                      : "committed on one shard after the other, not at once: on " +
                            cannot_prepare_ +
                            " max_prepared_transactions is 0 or schema pgsled is missing");
}

void shard_transaction::perform(std::vector<commit::action> actions) {
  for (auto& next : actions) {
    const auto found = legs_.find(next.shard);
    auto* one = found != legs_.end() ? found->second.get() : nullptr;
    switch (next.what) {
      case commit::action::kind::send:
        if (one != nullptr) one->ask(next.sql);
        break;
      case commit::action::kind::release:
        if (one != nullptr) release(*one);
        break;
      case commit::action::kind::drop:
        if (one != nullptr) drop(*one);
        break;
      case commit::action::kind::answer:
        finish(next.error.sqlstate.empty() ? nullptr : &next.error, next.warning);
        break;
    }
  }
  arm();
}

// What the operator has to do before transactions over several shards are possible.
void shard_transaction::explain(leg& one) {
  auto& error = *one.error;
  if (!coordinator_->may_cancel()) return;
  if (error.hint.find("max_prepared_transactions") != std::string::npos) {
    error.detail = error.message;
    error.message = "the transaction was rolled back: " + one.where() +
                    " cannot prepare it, because of its max_prepared_transactions";
    error.hint =
        "Set max_prepared_transactions on that server to at least its max_connections and restart "
        "it, or use keys of one shard in a transaction.";
  } else if ((error.sqlstate == "3F000" || error.sqlstate == "42883") &&
             error.message.find("pgsled") != std::string::npos) {
    error = {"55000",
             "the transaction was rolled back: " + one.where() +
                 " has no schema pgsled for decisions about commits",
             "The router makes it at its start, as the role of its user that may do so: GRANT "
             "CREATE ON DATABASE to it, and see its log.",
             error.message};
  }
}

void shard_transaction::arm() {
  worker_.loop().cancel(std::exchange(timer_, 0));
  if (what_ != work::committing) return;
  const auto at = coordinator_->next_tick();
  if (at == std::numeric_limits<std::int64_t>::max()) return;
  timer_ = worker_.loop().at(net::time_point(std::chrono::milliseconds(at)), [this] {
    timer_ = 0;
    auto& owner = worker_;
    perform(coordinator_->tick(now()));
    owner.run_scheduled();
  });
}

void shard_transaction::finish(const pg_error* why, const std::string& warning) {
  what_ = work::nothing;
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
    if (!one->running || lease == nullptr || lease->cancelling || lease->orphan) continue;
    lease->cancelling = true;
    worker_.tell_pooler(lease->pooler(), lease::cancel{lease->id(), lease->generation()});
  }
}

}  // namespace pgsled::frontend
