#include "services/frontend/broadcast.hpp"

#include "common/log/json_escape.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/client.hpp"
#include "services/frontend/unit.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

// The transaction on one shard.
struct broadcast::leg final : lease_waiter, server_user {
  leg(broadcast& b, std::uint32_t n) : owner(b), shard(n) {}

  void granted(server& lent) override {
    lease = &lent;
    waiting = false;
    lent.attach(this);
    owner.acquire_next();
  }
  void not_granted(const pg_error& why) override {
    waiting = false;
    owner.fail(why);
  }
  void from_server(byte_span) override {}  // its replies are ours
  void statement_done(const sql::statement*, std::string_view tag, bool) override {
    owner.command_complete(tag);
  }
  void server_error(byte_span body, bool) override {
    if (error) return;
    error = std::make_unique<pg_error>();
    if (const auto fields = wire::read_error(body)) {
      *error = {std::string(fields->sqlstate), std::string(fields->message),
                std::string(fields->hint), std::string(fields->detail)};
    }
  }
  void entry_dropped(const session::entry&) override {}
  void server_parameter(std::string_view, std::string_view, bool) override {}
  void server_ready(char, bool) override { ready = true; }
  void server_read_done() override {
    if (!ready || !lease->ledger.empty()) return;
    ready = false;
    owner.step_done(*this);
  }
  void server_lost(const pg_error& why) override {
    lease = nullptr;
    owner.fail(why);
  }
  bool wants_more() const override { return true; }
  void server_drained() override {}

  broadcast& owner;
  std::uint32_t shard;
  server* lease = nullptr;
  std::unique_ptr<pg_error> error;
  bool waiting = false, ready = false;
};

broadcast::broadcast(worker& w, client& c) : worker_(w), client_(c) {}
broadcast::~broadcast() { release_all(); }

void broadcast::run(std::string unit_bytes, std::string sql, const plan::plan* planned,
                    const sql::statement* effect, bool in_transaction) {
  unit_ = std::move(unit_bytes);
  sql_ = std::move(sql);
  explicit_ = in_transaction;
  error_.reset();
  tag_.clear();
  steps_.clear();
  at_ = 0;
  planned_change_ = planned_change_ || (planned != nullptr && planned->changes_catalog);
  spread_ = planned != nullptr ? planned->spread_sequences_of : std::vector<std::string>{};
  ends_ = effect != nullptr &&
          (effect->effect == sql::effect::commit || effect->effect == sql::effect::rollback);
  commits_ = ends_ && effect->effect == sql::effect::commit && client_.virtual_status_ == 'T';
  if (client_.virtual_status_ == 'E' && !ends_) {
    const pg_error aborted{
        "25P02",
        "current transaction is aborted, commands ignored until end of transaction block",
        {},
        {}};
    return answer(&aborted);
  }
  if (planned != nullptr && planned->own_transaction) {
    const pg_error why{
        "0A000",
        "this statement cannot run inside a transaction block and so not on all shards together",
        "Run it on each shard directly.",
        {}};
    if (explicit_) client_.virtual_status_ = 'E';
    return answer(&why);
  }
  if (planned == nullptr && !ends_) {
    const pg_error why{
        "0A000",
        "in a transaction that changes all shards only statements for all shards are possible",
        "Run this statement in a transaction of its own.",
        {}};
    client_.virtual_status_ = 'E';
    return answer(&why);
  }
  if (legs_.empty()) {
    begin_ = client_.script_.sql();
    for (std::uint32_t shard = 0; shard < client_.endpoint_->database.shards; ++shard) {
      legs_.push_back(std::make_unique<leg>(*this, shard));
    }
    return acquire_next();
  }
  add_statement_steps();
  advance();
}

void broadcast::acquire_next() {
  for (auto& next : legs_) {
    if (next->lease != nullptr) continue;
    auto* pool = next->shard < client_.endpoint_->pools.size()
                     ? client_.endpoint_->pools[next->shard]
                     : nullptr;
    if (pool == nullptr)
      return fail(
          pg_error{"57P03", "shard " + std::to_string(next->shard) + " has no host", {}, {}});
    next->waiting = true;
    server* lent = pool->take(next.get());
    if (lent == nullptr) return;  // granted() goes on
    next->waiting = false;
    next->lease = lent;
    lent->attach(next.get());
  }
  begin_steps();
}

void broadcast::begin_steps() {
  const auto& wanted = client_.shadow_->current();
  for (std::size_t i = 0; i < legs_.size(); ++i) {
    auto& lease = *legs_[i]->lease;
    auto sql = lease.settings_unknown ? session::full_application(*wanted)
                                      : session::difference(*lease.settings, *wanted);
    if (!sql.empty()) steps_.push_back({i, std::move(sql), true});
  }
  for (std::size_t i = 0; i < legs_.size(); ++i) {
    steps_.push_back({i, explicit_ && !begin_.empty() ? begin_ : "BEGIN"});
  }
  add_statement_steps();
  advance();
}

void broadcast::add_statement_steps() {
  if (ends_) {
    const bool commit = commits_;
    for (std::size_t i = 0; i < legs_.size(); ++i) {
      step next{i, commit ? "COMMIT" : "ROLLBACK"};
      next.commit = commit;
      next.rollback = !commit;
      steps_.push_back(std::move(next));
    }
    return;
  }
  for (std::size_t i = 0; i < legs_.size(); ++i) {
    step statement{i, sql_};
    statement.answers = true;
    steps_.push_back(std::move(statement));
    if (!spread_.empty()) steps_.push_back({i, spreading_sql(legs_[i]->shard)});
  }
  if (explicit_) return;
  for (std::size_t i = 0; i < legs_.size(); ++i) {
    step next{i, "COMMIT"};
    next.commit = true;
    steps_.push_back(std::move(next));
  }
}

// Sequences made with a sharded table give every shard values of its own: shard s counts s+1,
// s+1+1024, … so that rows can move between shards without a collision.
std::string broadcast::spreading_sql(std::size_t shard) const {
  std::string names;
  for (const auto& name : spread_) {
    names += (names.empty() ? "" : ",") + session::quote_literal(name);
  }
  return "DO $pgsled$ DECLARE r record; BEGIN FOR r IN SELECT "
         "s.seqrelid::pg_catalog.regclass::text AS name "
         "FROM pg_catalog.pg_sequence s WHERE s.seqincrement = 1 AND (s.seqrelid IN (SELECT "
         "pg_catalog.to_regclass(n) FROM pg_catalog.unnest(ARRAY[" +
         names +
         "]::text[]) n) OR EXISTS (SELECT FROM "
         "pg_catalog.pg_depend d WHERE d.objid = s.seqrelid AND d.classid = "
         "'pg_catalog.pg_class'::pg_catalog.regclass "
         "AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', "
         "'i') AND d.refobjid IN "
         "(SELECT pg_catalog.to_regclass(n) FROM pg_catalog.unnest(ARRAY[" +
         names +
         "]::text[]) n))) LOOP EXECUTE "
         "pg_catalog.format('ALTER SEQUENCE %s INCREMENT BY 1024 START WITH " +
         std::to_string(shard + 1) + " RESTART', r.name); END LOOP; END $pgsled$";
}

void broadcast::advance() {
  if (at_ == steps_.size()) return finish();
  auto& next = steps_[at_];
  auto& on = *legs_[next.leg];
  if (on.lease == nullptr) {
    ++at_;
    return advance();
  }
  std::string bytes;
  wire::write_query(bytes, next.sql);
  on.lease->ledger.add({session::owed::query, true});
  on.lease->unnamed.reset();
  on.lease->send(bytes);
}

void broadcast::command_complete(std::string_view tag) {
  if (at_ >= steps_.size()) return;
  steps_[at_].tag = tag;
  // A Query may hold several statements; the client gets the tags of one shard.
  if (!steps_[at_].answers || steps_[at_].leg != 0) return;
  if (!tag_.empty()) tag_.push_back('\0');
  tag_.append(tag);
}

void broadcast::step_done(leg& on) {
  if (abandoned_) return;
  const auto& done = steps_[at_];
  if (on.error) {
    auto why = std::move(*on.error);
    on.error.reset();
    if (!done.rollback) return fail(why);
  }
  if (done.settings) {
    on.lease->settings = client_.shadow_->current();
    on.lease->settings_unknown = false;
  }
  if (done.commit) {
    if (done.tag == "ROLLBACK")
      return fail(pg_error{"40000", "the transaction was rolled back on a shard", {}, {}});
    ++committed_;
  }
  ++at_;
  advance();
}

void broadcast::fail(const pg_error& why) {
  if (abandoned_) return;
  if (!error_) {
    error_ = std::make_unique<pg_error>(why);
    if (committed_ > 0) {
      error_->detail = "It has been committed on " + std::to_string(committed_) + " of " +
                       std::to_string(legs_.size()) + " shards already.";
      error_->hint = "Bring the other shards to the same state by hand.";
    }
  }
  for (auto& each : legs_) {
    if (each->waiting) {
      client_.endpoint_->pools[each->shard]->forget(each.get());
      each->waiting = false;
    }
  }
  if (at_ < steps_.size() && steps_[at_].commit) commit_failed_ = true;
  steps_.clear();
  at_ = 0;
  for (std::size_t i = 0; i < legs_.size(); ++i) {
    auto* lease = legs_[i]->lease;
    if (lease != nullptr && lease->ledger.empty() && lease->ledger.status() != 'I') {
      step undo{i, "ROLLBACK"};
      undo.rollback = true;
      steps_.push_back(std::move(undo));
    }
  }
  ends_ = true;
  commits_ = false;
  advance();
}

void broadcast::finish() {
  const bool over = !explicit_ || ends_;
  if (error_) {
    // After a failure all shards have been rolled back; an explicit transaction waits for its end.
    if (!explicit_ || commit_failed_) {
      client_.virtual_status_ = 'I';
      client_.script_.clear();
      client_.unrun_ = false;
    } else if (client_.virtual_status_ == 'T') {
      client_.virtual_status_ = 'E';
    }
    release_all();
    client_.shadow_->failed();
    if (client_.virtual_status_ == 'I') client_.shadow_->ready('I');
    const auto error = std::move(error_);
    answer(error.get());
    return;
  }
  if (planned_change_ && over && (!ends_ || commits_)) {
    planned_change_ = false;
    const auto told = "{\"command\":\"catalog_changed\",\"database\":\"" +
                      log::json_escape(client_.endpoint_->database.name) + "\"}";
    worker_.router().tell(bus::kind::command, as_bytes(told));
  }
  if (over && ends_) {
    tag_ = commits_ ? "COMMIT" : "ROLLBACK";
    client_.virtual_status_ = 'I';
    client_.script_.clear();
    client_.unrun_ = false;
  }
  if (over) release_all();
  answer(nullptr);
}

void broadcast::release_all() {
  for (auto& each : legs_) {
    if (each->waiting) {
      if (auto* pool = client_.endpoint_->pools[each->shard]) pool->forget(each.get());
    }
    if (auto* lease = std::exchange(each->lease, nullptr)) lease->pool().release(*lease);
  }
  legs_.clear();
}

void broadcast::answer(const pg_error* error) {
  auto& c = client_;
  const auto bytes = std::exchange(unit_, {});
  const auto tag = tag_;
  std::unique_ptr<pg_error> why = error != nullptr ? std::make_unique<pg_error>(*error) : nullptr;
  const bool over = legs_.empty();
  // Answered from the loop, not from inside the server's read: the client may drop this object.
  worker_.schedule([&c, bytes, tag, why = std::shared_ptr<pg_error>(std::move(why)), over] {
    if (c.state_ != client::state::broadcast) return;
    if (over) c.broadcast_.reset();
    c.set_state(client::state::ready);
    unit parsed;
    c.read_unit(as_bytes(bytes), parsed);
    if (why) {
      c.refuse_unit(parsed, *why);
    } else {
      c.answer_unit(parsed, tag);
    }
    c.resume();
    c.watch();
  });
}

void broadcast::cancel() {
  if (at_ >= steps_.size()) return;
  auto* lease = legs_[steps_[at_].leg]->lease;
  if (lease == nullptr || lease->ledger.empty() || lease->cancelling || lease->orphan) return;
  lease->cancelling = true;
  worker_.tell_pooler(lease->pooler(), lease::cancel{lease->id(), lease->generation()});
}

void broadcast::abandon() {
  abandoned_ = true;
  release_all();
}

}  // namespace pgsled::frontend
