// What the attached server says and what becomes of it: replies, effects on the session, errors;
// taking a lease, applying the session's settings to it, and letting it go.

#include <algorithm>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/client/login.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

// Waits until the server owes nothing, and makes it say what it holds back until a Sync.
void client::settle() {
  set_state(state::settling);
  server_->flush_virtual();
  flush_to_client();
  if (server_->ledger.empty()) {
    // Only we owed something. Not now: the pass over the input that brought us here goes first.
    worker_.schedule([this] {
      if (state_ != state::settling) return;
      settled();
      consume({});
      watch();
    });
    return;
  }
  if (server_->ledger.may_hold_back()) {
    std::string flush;
    wire::write_empty(flush, wire::frontend::flush);
    server_->send(flush);
  }
}

void client::settled() {
  set_state(state::ready);
  confirm_changes();
}

std::uint32_t client::note_change(std::string_view name, statement_ref statement, bool closed) {
  if (!unconfirmed_) unconfirmed_ = std::make_unique<std::vector<note>>();
  unconfirmed_->push_back({.name = std::string(name),
                           .statement = std::move(statement),
                           .closed = closed,
                           .batch = server_->ledger.batch()});
  closes_unconfirmed_ = closes_unconfirmed_ || closed;
  return static_cast<std::uint32_t>(unconfirmed_->size());
}

// The server owes nothing: what it has not taken back is so.
void client::confirm_changes() {
  if (!unconfirmed_) return;
  for (const note& one : *unconfirmed_) {
    if (one.closed || one.repeated || one.name.empty()) continue;
    const auto* now = find_prepared(one.name);
    if (now == nullptr || *now != one.statement) continue;   // it has failed, perhaps
    one.statement->proven_endpoint = endpoint_;
    one.statement->proven_settings = shadow_->current();
  }
  closes_unconfirmed_ = false;
  unseen_since_ = present_statements::surely;
  if (unconfirmed_->capacity() > 4) {
    unconfirmed_.reset();
  } else {
    unconfirmed_->clear();
  }
}

// So many replies are owed, or so many changes not confirmed, that what comes next has to wait. In
// a COPY the server waits for the client.
bool client::pipeline_full() const {
  return server_ != nullptr && !server_->ledger.copying_in() &&
         (server_->ledger.size() >= max_owed || (unconfirmed_ && unconfirmed_->size() >= max_owed));
}

bool client::is_unconfirmed(std::string_view name) const {
  return noted([&](const note& one) { return one.name == name && !one.repeated; });
}

void client::statement_done(const sql::statement* done, std::string_view tag, bool proxy) {
  if (proxy || done == nullptr || !shadow_) return;
  if (endpoint_->sharded) {
    script_.succeeded(*done, shadow_->undecided() ? nullptr : shadow_->current(),
                      shadow_->behind(*done));
  }
  shadow_->succeeded(*done, tag, worker_.pairs());
  const bool forgot = done->effect == sql::effect::discard_all ||
                      (done->effect == sql::effect::deallocate && done->name.empty());
  if (forgot && server_ != nullptr) {
    if (done->effect == sql::effect::discard_all && pins_ == pins_when_discarded_ &&
        std::exchange(pinned_, false)) {
      own_settings_ = false;
      worker_.counters().pinned.subtract();
    }
    server_->dirty = pinned_ || endpoint_->mode == pool_mode::session;
  }
  if (server_ != nullptr) {
    if (shadow_->take_connection_unknown()) {
      server_->settings_unknown = true;
    } else if (!server_->settings_unknown) {
      server_->settings = shadow_->current();
    }
  }
  const auto& kept = shadow_->current()->entries;
  std::size_t bytes = 0;
  for (const auto& [name, value] : kept) bytes += name.size() + value.size();
  if (kept.size() > session::pair_table::max_entries || bytes > session::pair_table::max_bytes) {
    worker_.schedule([this] {
      end(pg_error{
          "53200", "too many settings in one session", "RESET those that are no longer used.", {}});
    });
  }
}

void client::server_error(byte_span body, bool proxy) {
  if (!proxy) {
    ++counts_.errors;
    if (server_ != nullptr) ++server_->pool().stats.errors;
    const auto said = wire::read_error(body);
    worker_.counters().errors.add(said ? said->sqlstate : std::string_view());
    if (shadow_) shadow_->failed();
    error_is_fresh_ = true;
    settled_names_.reset();
    unrun_ = false;  // the transaction has failed where it is and cannot begin elsewhere
    return;
  }
  const auto fields = wire::read_error(body);
  if (!apply_error_) {
    apply_error_ = std::make_unique<pg_error>();
    if (fields) {
      apply_error_->sqlstate = fields->sqlstate;
      apply_error_->message = fields->message;
      apply_error_->detail = fields->detail;
      apply_error_->hint = fields->hint;
    }
  }
}

// A prepared statement has another name on the server than the client gave it.
bool client::rewrite_error(const session::entry* head, byte_span body, std::string& replacement) {
  const auto fields = wire::read_error(body);
  if (!fields) return false;
  if (spread_ && fields->sqlstate == "57014" && spread_->take_victim()) {
    wire::write_error(replacement, "ERROR", shard_transaction::deadlock());
    return true;
  }
  const auto at = fields->message.find(server_statement_prefix);
  if (at == std::string_view::npos) return false;
  const auto length = std::min(fields->message.find('"', at), fields->message.size()) - at;
  const auto server_name = fields->message.substr(at, length);
  const std::string* own = nullptr;
  const bool marked = head != nullptr && head->mark != 0 && head->kind != session::owed::query;
  if (unconfirmed_ && marked && head->mark <= unconfirmed_->size()) {
    own = &(*unconfirmed_)[head->mark - 1].name;
  } else if (unconfirmed_) {
    for (const note& one : *unconfirmed_) {
      if (!one.repeated && !one.name.empty() && one.statement->server_name() == server_name)
        own = &one.name;
    }
  }
  if (own == nullptr && prepared_) {
    for (const auto& [name, prepared] : *prepared_) {
      if (prepared->server_name() == server_name) own = &name;
    }
  }
  if (own == nullptr) return false;
  const auto text = as_text(body);
  const auto start = static_cast<std::size_t>(fields->message.data() - text.data()) + at;
  wire::writer message(replacement, wire::backend::error_response);
  message.raw(text.substr(0, start)).raw(*own).raw(text.substr(start + length));
  return true;
}

// Before the first change of it that stands at `first` or behind in unconfirmed_; now, if there is
// none.
void client::unnamed_was(std::size_t first, statement_ref what) {
  for (auto i = first; unconfirmed_ && i < unconfirmed_->size(); ++i) {
    if (note& one = (*unconfirmed_)[i]; one.name.empty()) {
      one.statement = std::move(what);
      return;
    }
  }
  unnamed_ = std::move(what);
}

void client::entry_dropped(const session::entry& gone) {
  const bool failed_itself = std::exchange(error_is_fresh_, false);
  if (gone.mark == 0) {
    // One that was there already has no note, as the first of all that were sent together.
    if (failed_itself && gone.prepares && !gone.proxy && server::of_unnamed(gone.tag)) {
      unnamed_was(0, nullptr);
    }
    return;
  }
  if (!unconfirmed_ || gone.mark > unconfirmed_->size()) return;
  const note& taken_back = (*unconfirmed_)[gone.mark - 1];
  if (taken_back.repeated) return;
  // A DEALLOCATE that has not run leaves its stand-in behind.
  if (gone.kind == session::owed::execute && failed_itself && server_ != nullptr)
    server_->dirty = true;
  const std::string& name = taken_back.name;
  const statement_ref& prepared = taken_back.statement;
  // A Parse that failed leaves no unnamed statement; what was skipped leaves the one before.
  if (name.empty()) return unnamed_was(gone.mark, failed_itself ? nullptr : prepared);
  if (!settled_names_) settled_names_ = std::make_unique<std::vector<std::string>>();
  // The first change of a name that is taken back decides: it says what was before all of them.
  if (std::find(settled_names_->begin(), settled_names_->end(), name) != settled_names_->end())
    return;
  settled_names_->push_back(name);
  if (taken_back.closed) {
    names().insert_or_assign(name, prepared);
    return;
  }
  if (!prepared_) return;
  const auto known = prepared_->find(name);
  if (known != prepared_->end() && known->second == prepared) prepared_->erase(known);
}

void client::server_parameter(std::string_view name, std::string_view value, bool proxy) {
  // While settings are applied for this client, what it is told is settled at the end.
  if ((proxy && state_ == state::applying) || !reported_ || state_ == state::login) return;
  if (const auto* known = reported_->find(name); known != nullptr && *known == value) return;
  reported_ = worker_.pairs().with(reported_, name, value);
  wire::write_parameter_status(worker_.client_out(), name, value);
}

void client::settings_decided(char status) {
  if (!shadow_) return;
  shadow_->ready(status);
  if (std::exchange(datestyle_changed_, false)) {
    if (const auto* style = server_->parameters->find("DateStyle")) {
      shadow_->restate("datestyle", ":" + *style, worker_.pairs());
    }
  }
  // A failed implicit transaction has taken its settings back.
  if (!server_->settings_unknown && state_ != state::login) server_->settings = shadow_->current();
}

void client::server_ready(char server_status, bool proxy) {
  if (proxy) return;
  settings_decided(server_status);
  if (!server_->ledger.runs_something()) light_ = true;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(worker_.loop().now() -
                                                                          last_request_);
  const auto took_us = static_cast<std::uint64_t>(took.count());  // now() never goes back
  worker_.counters().answer.observe_us(took_us);
  server_->pool().stats.query_us += took_us;
  if (server_status == 'I') {
    // What has been sent behind it may have begun the next one already.
    local_settings_ = local_settings_ && server_->ledger.pending(changes_parsing);
    wrote_ = false;
    script_.clear();
    portal_shards_.reset();
    if (spread_) {
      worker_.schedule([this] {
        end(pg_error{"XX000", "a server has ended a transaction over several shards by itself",
                     {}, {}});
      });
    }
    ++counts_.transactions;
    ++server_->pool().stats.transactions;
    worker_.counters().transactions.add();
  }
  if (server_->ledger.empty()) {
    confirm_changes();
    if (server_status == 'I') server_->forget_portals();
  }
}

bool client::may_let_go() const {
  return server_ != nullptr && state_ == state::ready && !pinned_ && !spread_ && streaming_ == 0 &&
         unit_left_ == 0 && server_->quiet() && endpoint_->mode != pool_mode::session;
}

void client::server_read_done() {
  flush_to_client();
  if (state_ == state::closed || server_ == nullptr) return;
  if (!server_->usable()) {
    // A FATAL error has just gone to the client, or nobody can know what the server owes.
    if (!spread_ && !pinned_ && endpoint_->mode != pool_mode::session &&
        server_->ledger.doubtful() && server_->ledger.empty() && !server_->ledger.skipping() &&
        server_->ledger.status() == 'I') {
      if (state_ == state::settling) settled();
      let_go();
      resume();
      return;
    }
    if (!server_->ledger.doubtful()) {
      if (apply_error_) {
        const auto why = std::move(*apply_error_);
        end(why);
      } else {
        close("the server ended the connection");
      }
      return;
    }
  }
  if (server_->ledger.empty()) {
    if (state_ == state::applying || login_) {
      applied();
      return;
    }
    if (apply_error_ && state_ == state::ready) {   // of what came behind a DISCARD ALL
      const auto why = std::move(*apply_error_);
      return end(why);
    }
    if (state_ == state::refusing) {
      settings_decided(server_->ledger.status());
      if (owes_ready_) {
        owes_ready_ = false;
        std::string ready;
        wire::write_ready(ready, server_->ledger.status());
        write(ready);
      }
      apply_error_.reset();
      set_state(state::ready);
      if (may_let_go()) let_go();
      resume();
      return;
    }
    if (state_ == state::settling) {
      settled();
      if (may_let_go()) let_go();
      resume();
      return;
    }
  } else if (state_ == state::settling && server_->ledger.copying_in()) {
    // It waits for what we hold back.
    set_state(state::ready);
    resume();
    return;
  }
  if (may_let_go()) {
    let_go();
    if (ends_with_drain()) return;
    resume();
  }
}

void client::let_go() {
  server* used = std::exchange(server_, nullptr);
  if (used == nullptr) return;
  virtual_status_ = unrun_ ? 'T' : 'I';
  used->pool().release(*used);
}

bool client::ensure_server(std::uint32_t shard) {
  if (server_ != nullptr) return true;
  if (spread_) {
    lend(spread_->has(shard) ? shard : spread_->shards().front());
    return true;
  }
  local_pool* pool = shard < endpoint_->pools.size() ? endpoint_->pools[shard] : nullptr;
  if (pool == nullptr || endpoint_->stale) {
    snapshot_changed();
    if (state_ == state::closed) return false;
    pool = shard < endpoint_->pools.size() ? endpoint_->pools[shard] : nullptr;
    if (pool == nullptr) {
      set_state(state::waiting);
      worker_.schedule([this, shard] {
        if (state_ != state::waiting) return;
        not_granted(pg_error{"57P03", "database \"" + endpoint_->database.name +
                                          "\" has no host for shard " + std::to_string(shard),
                             "Add it to pgdog.toml and reload.", {}});
      });
      return false;
    }
  }
  set_state(state::waiting);
  server* lent = pool->take(this);
  if (lent == nullptr) return false;
  set_state(state::ready);
  return attach(*lent);
}

void client::granted(server& lent) {
  PGSLED_ASSERT(state_ == state::waiting || (login_ && state_ == state::login));
  if (!login_) set_state(state::ready);
  if (attach(lent)) {
    if (login_) return finish_login();
    consume({});
    watch();
  }
}

bool client::attach(server& lent) {
  server_ = &lent;
  lent.attach(this);
  if (endpoint_->mode == pool_mode::session) lent.dirty = true;
  const auto& wanted = shadow_->current();
  if (wanted->hides_ascii) lent.dirty = true;   // what was not seen is cleaned away
  std::string sql;
  if (lent.settings_unknown) {
    sql = session::full_application(*wanted);
  } else if (lent.settings != wanted) {
    sql = session::difference(*lent.settings, *wanted);
  }
  std::string bytes;
  if (!sql.empty()) {
    worker_.counters().settings_applied.add();
    const auto* applied = lent.settings_unknown ? nullptr : lent.settings.get();
    if (const auto first = session::encoding_before(applied, *wanted, sql); !first.empty()) {
      wire::write_query(bytes, first);
      lent.ledger.add({session::owed::query, true});
    }
    wire::write_query(bytes, sql);
    lent.ledger.add({session::owed::query, true});
    lent.unnamed.reset();
  }
  begins_alone_ = virtual_status_ == 'T' && unrun_ && sql.empty();
  if (virtual_status_ == 'T' && unrun_) {
    wire::write_query(bytes, script_.sql());
    lent.ledger.add({session::owed::query, true});
    lent.unnamed.reset();
  }
  if (bytes.empty()) {
    tell_parameters(server_->parameters);
    return true;
  }
  if (!login_) set_state(state::applying);
  lent.send(bytes);
  return false;
}

void client::applied() {
  if (apply_error_ && begins_alone_ && server_->ledger.status() == 'E') {
    // A SET LOCAL or the like that has been answered already: what comes next has the error.
    begin_error_ = std::move(apply_error_);
    unrun_ = false;
    unit_left_ = 0;   // which was on its way to the server
  }
  if (apply_error_) {
    auto why = std::move(*apply_error_);
    apply_error_.reset();
    server_->settings_unknown = true;
    server_->dirty = true;
    if (login_) return refuse_login(why);
    return end(why);
  }
  server_->settings = shadow_->current();
  server_->settings_unknown = false;
  if (login_) return finish_login();
  tell_parameters(server_->parameters);
  set_state(state::ready);
  consume({});
  watch();
  if (may_let_go()) let_go();
}

void client::tell_parameters(const session::pair_set_ref& now) {
  if (login_ || !reported_ || reported_ == now) return;
  std::string bytes;
  for (const auto& [name, value] : now->entries) {
    const auto* known = reported_->find(name);
    if (known == nullptr || *known != value) wire::write_parameter_status(bytes, name, value);
  }
  reported_ = now;
  write(bytes);
}

void client::not_granted(const pg_error& why) {
  if (login_) return refuse_login(why);
  set_state(state::ready);
  unit_left_ = 0;
  wire::frame frame;
  const bool simple =
      wire::peek(as_bytes(pending_), frame) == wire::frame_state::complete &&
      (frame.type == wire::frontend::query || frame.type == wire::frontend::function_call);
  if (server_ != nullptr) {
    // What comes before it is answered first; then it is asked for again. Behind an error it is
    // nothing that anybody answers.
    if (!server_->ledger.empty()) return settle();
    if (server_->ledger.skipping()) return resume();
  }
  const bool undoes = simple && batch_ && !steps_;
  if (undoes && server_ != nullptr && server_->ledger.unsynced()) {
    sync_first();
    return;
  }
  // What could not be served leaves no unnamed statement.
  const auto head = as_bytes(pending_);
  if (!head.empty() && replaces_unnamed(pending_.front(), head.subspan(std::min(
                           head.size(), wire::header_size)))) {
    unnamed_ = nullptr;
  }
  if (simple && pending_.size() >= frame.total()) {
    pending_.erase(0, frame.total());
    steps_left_ = 0;
  } else if (simple) {
    // A message that streams: its rest is still to come and cannot be kept.
    end(why);
    return;
  }
  if (undoes) {
    undo_batch(why);
  } else {
    refuse(why, simple);
  }
  resume();
}

void client::server_lost(const pg_error& why) {
  worker_.client_out().clear();
  // A leg of the transaction: who deletes it is the one that calls.
  if (spread_ && server_ != nullptr) spread_->lost_lent(server_->pool().description().shard);
  server_ = nullptr;
  if (login_) return refuse_login(why);
  end(why);
}

}  // namespace pgsled::frontend
