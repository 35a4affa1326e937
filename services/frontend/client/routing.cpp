// Where a unit of messages goes: to a server, to several, back to the client with an answer or a
// refusal, or on to be taken apart.

#include <algorithm>

#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;

namespace {
const pg_error asks_of_another{
    "0A000",
    "a batch with a statement for several shards parses or describes another, which it does not "
    "run",
    "Send Sync between them.", {}};
}  // namespace

// Statements that need no particular shard always use the same one for a client.
std::uint32_t client::own_shard() const {
  const auto& serving = endpoint_->serving;
  return endpoint_->sharded && !serving.empty() ? serving[slot_ % serving.size()] : 0;
}

client::routed client::route(byte_span bytes, bool stepwise) {
  // A COMMIT or ROLLBACK in the batch has ended what began with it.
  if (batch_ && !steps_ && !spread_ && server_ != nullptr && server_->ledger.empty() &&
      !script_.open()) {
    batch_ = false;
  }
  if (server_ != nullptr && server_->ledger.skipping()) {
    if (batch_ && static_cast<char>(bytes[0]) == fe::sync) return sync_first();
    // The server throws everything away up to Sync; nothing is to be decided.
    unit_left_ = 1;
    unit_shard_ = server_->pool().description().shard;
    return routed::go;
  }
  if (endpoint_->sharded && meaning_in_doubt()) return settle_first();
  unit now;
  if (!read_unit(bytes, now)) return routed::need_more;
  if (now.in_doubt) return settle_first();
  if (batch_ && now.parts.front().type == fe::sync) return end_batch(now, bytes);
  if ((batch_ || stepwise) && !now.simple) cut_unit(now, bytes);
  worker_.set_shaped({});
  unit_goal goal;
  if (!read_goal(now, goal)) return routed::suspended;
  if (const auto failed = std::move(begin_error_); failed && !leaves_failure(goal.executed)) {
    unit_left_ = now.bytes;
    refuse_unit(now, *failed);
    return routed::done;
  }
  if (endpoint_->sharded) {
    if (const auto how = take_otherwise(now, bytes, goal, stepwise)) return *how;
  }
  answers_.clear();
  unit_left_ = now.bytes;
  unit_shard_ = own_shard();
  if (!endpoint_->sharded) return routed::go;
  if (batch_ && !goal.refused) goal.refused = beyond_batch(goal.executed, goal.text);
  if (batch_ && !goal.refused) {
    if (const auto how = begin_in_batch(now, goal)) return *how;
    if (!goal.refused) warn_in_batch(goal.executed, goal.text);
  }
  if (goal.refused) return refuse_goal(now, *goal.refused);
  if (endpoint_->owners->moving) {
    const auto held = hold_at_fence(goal.fenced);
    if (held != routed::go) {
      unit_left_ = 0;
      return held;
    }
  }
  if (goal.copies) return route_copy(now, bytes, goal.copies, goal.text);
  goal.cursor = cursor_of(goal.text);
  goal.names_portals = goal.names_portals || goal.cursor.what == cursor_use::kind::declares ||
                       goal.cursor.what == cursor_use::kind::closes;
  if (spread_) return route_spread(now, bytes, goal);
  if (goal.target.where == aim::kind::all && (now.simple || now.executes > 0)) {
    return route_everywhere(now, bytes, goal.everywhere->plan, goal.text);
  }
  if (server_ == nullptr && answer_virtually(now, goal)) return routed::done;
  return route_to_one(now, goal);
}

// The server has to answer for what it has first.
client::routed client::settle_first() {
  unit_left_ = 0;
  settle();
  return routed::suspended;
}

// What cannot go to one place as a whole: its BEGIN is answered by itself, it is taken step by
// step, or its statements one by one. None: it is taken as it is, or refused.
std::optional<client::routed> client::take_otherwise(const unit& now, byte_span bytes,
                                                     unit_goal& goal, bool stepwise) {
  const bool all = goal.target.where == aim::kind::all;
  if ((all || goal.copies || goal.controls > 0 || goal.refused) && now.executes > 0) {
    if (const auto how = close_portals_first(now, bytes)) return how;
  }
  if ((all || goal.copies || goal.controls > 0) && !goal.refused && !now.simple &&
      !runs_what_it_binds(now)) {
    goal.refused = {"0A000", "what concerns several shards is bound here and executed elsewhere",
                    "Send Bind and Execute of each such statement together, without Sync or Flush "
                    "between them.", {}};
  }
  if ((all || goal.copies || (goal.controls > 0 && spread_)) && !goal.refused && !now.simple &&
      now.executes > 0 && !binds_what_it_asks_of(now)) {
    goal.refused = asks_of_another;
  }
  if ((all || goal.copies || goal.controls > 0) && !now.simple) {
    if (const auto how = refuse_name_in_use(now, !spread_)) return how;
  }
  if (goal.copies && !now.simple && !stepwise && !batch_ && goes_on(now)) {
    // What shares a batch with COPY runs step by step, in one transaction.
    if (begin_alone(now, bytes)) return routed::done;
    const bool open = spread_ || status() != 'I';
    const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
    const bool free = !bound && (server_ == nullptr || server_->quiet());
    if (now.executes > 1 && !open && free) {
      begin_batch();
      unrun_ = true;
    }
    if (now.executes == 1 || open || free) return route(bytes, true);
  }
  if ((all || goal.refused) && begin_alone(now, bytes)) return routed::done;
  if (all && now.executes > 1 && !goal.refused && now.writes.size() != now.executes) {
    goal.refused = {"0A000",
                    "a statement for all shards cannot share a batch with other statements",
                    "Send Sync between them.", {}};
  }
  if (all && now.executes > 1 && !goal.refused) {
    if (const auto how = refuse_name_in_use(now, false)) return how;
  }
  // In a transaction what cannot go to one place together goes step by step.
  const bool elsewhere = goal.target.where == aim::kind::shard && server_ != nullptr &&
                         server_->pool().description().shard != goal.target.shard;
  const bool apart = goal.refused || (goal.controls > 0 && (spread_ || elsewhere));
  if (now.simple) {
    const bool renamed = changes_names(goal.executed);
    const bool again = goal.controls > 0 && server_ == nullptr && virtual_status_ == 'E';
    if (apart || renamed || again) {
      const auto how = take_apart(now, goal.text, goal.executed);
      if (how != routed::go) return how;
    }
    if (renamed && !goal.refused) {
      goal.refused = {"0A000",
                      "what stands behind SET search_path in one Query may be about other tables",
                      "Send SET by itself.", {}};
    }
  }
  if (apart && now.executes > 1 && !stepwise && !batch_ && (spread_ || status() != 'I')) {
    return route(bytes, true);
  }
  return std::nullopt;
}

// Drivers close portals that they have done with before the next statement, COMMIT among them: that
// is for the server that has them, by itself. None: there are no such.
std::optional<client::routed> client::close_portals_first(const unit& now, byte_span bytes) {
  unit head;
  for (const auto& part : now.parts) {
    const auto sent = wire::read_described(part.body);
    if (part.type != fe::close || !sent || sent->what != 'P') break;
    head.parts.push_back(part);
    head.bytes = static_cast<std::size_t>(part.body.data() + part.body.size() - bytes.data());
  }
  if (head.parts.empty()) return std::nullopt;
  answers_.clear();
  unit_left_ = head.bytes;
  if (server_ == nullptr && !spread_) {
    answer_unit(head, {});
    return routed::done;
  }
  unit_goal nothing;
  return spread_ ? route_spread(head, bytes, nothing) : route_to_one(head, nothing);
}

// What may not stand in a batch that is a transaction; and the BEGIN that makes it the client's
// own, which is answered.
std::optional<client::routed> client::begin_in_batch(const unit& now, unit_goal& goal) {
  if (now.simple && !steps_) {
    goal.refused = {"0A000", "a Query stands behind COPY on several shards in one batch",
                    "Send Sync before it.", {}};
    return std::nullopt;
  }
  if (goal.controls > 0 && server_ != nullptr) {
    if (!server_->ledger.empty()) return settle_first();
    if (server_->ledger.unsynced()) return sync_first();
  }
  const auto* only = only_effect(goal.executed);
  if (only == nullptr || only->effect != sql::effect::begin || (now.executes != 1 && !steps_)) {
    return std::nullopt;
  }
  if (!now.simple && !binds_what_it_asks_of(now)) {
    goal.refused = asks_of_another;
    return std::nullopt;
  }
  if (!has_modes(only->value)) {
    batch_ = false;
    answer_unit(now, starts_with_word(goal.text, "start") ? "START TRANSACTION" : "BEGIN");
    return routed::done;
  }
  goal.refused = {"0A000",
                  steps_ ? "BEGIN with options stands behind other statements"
                         : "BEGIN with options stands in a batch with COPY on several shards",
                  steps_ ? "Send BEGIN by itself." : "Send BEGIN and Sync before it.", {}};
  return std::nullopt;
}

// No server sees the Parse of what we answer: whether the name is free is for us to say. None: it
// is.
std::optional<client::routed> client::refuse_name_in_use(const unit& now, bool up_to_execute) {
  const auto taken = name_in_use(now, up_to_execute);
  if (!taken) return std::nullopt;
  if (server_ != nullptr && !server_->ledger.empty()) return settle_first();
  unit_left_ = now.bytes;
  unit failed = now;   // what stands behind it is skipped
  failed.parts.resize(*taken + 1);
  const auto sent = wire::read_parse(failed.parts.back().body);
  refuse_unit(failed, {"42P05", "prepared statement \"" + std::string(sent->name) +
                                    "\" already exists", {}, {}});
  return routed::done;
}

// The part that parses it. In session mode the server has the names, and says so.
std::optional<std::size_t> client::name_in_use(const unit& now, bool up_to_execute) const {
  if (endpoint_->mode == pool_mode::session) return std::nullopt;
  std::unordered_map<std::string_view, bool> changed;
  for (std::size_t at = 0; at < now.parts.size(); ++at) {
    const auto& part = now.parts[at];
    if (part.type == fe::execute && up_to_execute) break;
    if (part.type == fe::close) {
      const auto sent = wire::read_described(part.body);
      if (sent && sent->what == 'S') changed[sent->name] = false;
    }
    if (part.type != fe::parse) continue;
    const auto sent = wire::read_parse(part.body);
    if (!sent || sent->name.empty()) continue;
    const auto here = changed.find(sent->name);
    if (here != changed.end() ? here->second
                              : prepared_ && prepared_->contains(std::string(sent->name))) {
      return at;
    }
    changed[sent->name] = true;
  }
  return std::nullopt;
}

client::routed client::refuse_goal(const unit& now, const pg_error& why) {
  worker_.counters().plans_refused.add();
  // Its replies come first.
  if (server_ != nullptr && !server_->ledger.empty()) return settle_first();
  if (now.simple && batch_ && !steps_) return undo_batch(why);
  refuse_unit(now, why);
  return routed::done;
}

client::routed client::route_spread(const unit& now, byte_span bytes, unit_goal& goal) {
  if (portal_shards_) {
    if (const auto why = beyond_cursors(goal.cursor, goal.target)) return refuse_goal(now, *why);
    if (goal.target.where == aim::kind::any) follow_portals(now, goal.cursor, goal.target);
  }
  const auto how = route_shards(now, bytes, goal.target, goal.executed, goal.controls, goal.text,
                                goal.everywhere ? &goal.everywhere->plan : nullptr);
  if (how == routed::go && goal.writes) spread_->wrote(server_->pool().description().shard);
  if (how == routed::go) note_portals(now, goal.cursor, unit_shard_);
  return how;
}

// Of a transaction that no server knows yet. False: a server has to answer.
bool client::answer_virtually(const unit& now, const unit_goal& goal) {
  const auto* only = only_effect(goal.executed);
  const auto is_whole = [&] {
    return now.executes == 1 && binds_what_it_asks_of(now) && !name_in_use(now, false);
  };
  if (only != nullptr && (now.simple || is_whole()) && virtual_answer(now, *only, goal.text)) {
    return true;
  }
  if (virtual_status_ != 'E') return false;
  if (is_empty_query(now)) {
    answer_unit(now, {});
    return true;
  }
  if (!now.simple && now.executes == 0) {
    const bool closes = std::any_of(now.parts.begin(), now.parts.end(),
                                    [](const auto& part) { return part.type == fe::close; });
    if (!asks_of_statements(now) && !closes) return false;
    // To no server: it would not know that the transaction has failed.
    if (only_prepares_an_end(now)) {
      if (refuse_name_in_use(now, false)) return true;
      answer_unit(now, {});
      return true;
    }
  }
  refuse_unit(now, aborted_transaction());
  return true;
}

bool client::virtual_answer(const unit& now, const sql::statement& only, std::string_view text) {
  switch (only.effect) {
    case sql::effect::begin:
      if (virtual_status_ != 'I') return false;
      virtual_status_ = 'T';
      virtual_unit(now, only, starts_with_word(text, "s") ? "START TRANSACTION" : "BEGIN");
      return true;
    case sql::effect::commit:
    case sql::effect::rollback: {
      const bool again = chains(text);
      if (virtual_status_ == 'I') return false;
      if (again && (!surely_chains(text) || !script_.begins_alike())) return false;
      // Of one that has failed the modes are gone, or not, as its version has it.
      if (again && virtual_status_ == 'E' && has_modes(script_.begin())) return false;
      const bool back = virtual_status_ == 'E' || only.effect == sql::effect::rollback;
      const auto* tag = back ? "ROLLBACK" : "COMMIT";
      sql::statement begin;
      begin.effect = sql::effect::begin;
      begin.value = script_.begin();
      virtual_status_ = 'I';
      batch_ = false;
      if (again) {
        virtually_done(only, tag);
        virtual_status_ = 'T';
      }
      virtual_unit(now, again ? begin : only, tag);
      return true;
    }
    case sql::effect::savepoint:
    case sql::effect::set_local:
      // Replayed with BEGIN wherever the transaction begins. A call of set_config() has a row, and
      // whatever else its statement does.
      if (virtual_status_ != 'T' || starts_with_word(text, "set constraints") ||
          (only.effect == sql::effect::set_local &&
           (!starts_with_word(text, "set") || only.name.empty() || only.value.empty())) ||
          !script_.has_room(text.size() + 32)) {
        return false;
      }
      local_settings_ = local_settings_ || changes_parsing(only);
      virtual_unit(now, only, only.effect == sql::effect::savepoint ? "SAVEPOINT" : "SET");
      return true;
    case sql::effect::rollback_to:
      // What has failed was refused before it came to a server.
      if (virtual_status_ != 'E') return false;
      if (!script_.has_savepoint(only.name)) {
        refuse_unit(now, {"3B001", "savepoint \"" + only.name + "\" does not exist", {}, {}});
        return true;
      }
      virtual_status_ = 'T';
      virtual_unit(now, only, "ROLLBACK");
      return true;
    default:
      return false;
  }
}

client::routed client::route_to_one(const unit& now, const unit_goal& goal) {
  wrote_ = wrote_ || goal.writes;
  const auto* lent = server_ != nullptr ? &server_->pool().description() : nullptr;
  const bool any = goal.target.where == aim::kind::any;
  unit_shard_ = !any ? goal.target.shard : lent != nullptr ? lent->shard : own_shard();
  if (lent == nullptr || lent->shard == unit_shard_) {
    if (goal.names_portals) note_portals(now, goal.cursor, unit_shard_);
    return routed::go;
  }
  if (!server_->ledger.empty()) return settle_first();
  const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
  if (movable() && !bound) return settle_elsewhere();
  if (status() != 'I' && goal.controls == 0) return grow(now, unit_shard_);
  if (bound && status() == 'I') {
    refuse_unit(now, {"0A000",
                      "the session is bound to its connection of shard " +
                          std::to_string(lent->shard) + " and this statement goes to shard " +
                          std::to_string(unit_shard_),
                      "Run it in another session; or, unless pooling is by session, in a "
                      "transaction, which may go to both.",
                      {}});
    return routed::done;
  }
  refuse_unit(now, two_shards(lent->shard, unit_shard_));
  return routed::done;
}

// The server has only parsed and described for this unit's predecessors: end that with a Sync of
// ours (and the transaction, in which nothing has run) and go elsewhere.
client::routed client::settle_elsewhere() {
  unit_left_ = 0;
  set_state(state::settling);
  server_->ledger.add({session::owed::sync, true});
  std::string sync;
  wire::write_sync(sync);
  if (status() != 'I') {
    server_->ledger.add({session::owed::query, true});
    wire::write_query(sync, "ROLLBACK");
    server_->unnamed.reset();
  }
  server_->send(sync);
  return routed::suspended;
}

}  // namespace pgsled::frontend
