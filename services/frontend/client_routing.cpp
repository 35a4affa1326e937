// Which shard a unit of messages goes to, and the answers that need no server: a BEGIN before the
// first statement that names a shard, and the end of such a transaction.

#include <algorithm>

#include "common/sql/parse.hpp"
#include "common/sql/shape.hpp"
#include "services/frontend/client.hpp"
#include "services/frontend/client_output.hpp"
#include "services/frontend/same_rows.hpp"
#include "services/frontend/shard_transaction.hpp"
#include "services/frontend/unit.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;
using plan::destination;

namespace {

const sql::statement* only_effect(const session::effects& effects) {
  return effects && effects->size() == 1 ? &effects->front() : nullptr;
}

// Says something about the transaction as a whole.
bool is_control(sql::effect what) {
  using enum sql::effect;
  return what == begin || what == commit || what == rollback || what == savepoint ||
         what == release || what == rollback_to || what == set || what == set_local ||
         what == reset || what == reset_all || what == discard_all;
}

bool starts_with_word(std::string_view text, std::string_view lower_words) {
  if (text.size() < lower_words.size()) return false;
  for (std::size_t i = 0; i < lower_words.size(); ++i) {
    if ((text[i] | 0x20) != lower_words[i] && text[i] != lower_words[i]) return false;
  }
  return true;
}

std::size_t count_controls(const session::effects& effects) {
  if (!effects) return 0;
  return static_cast<std::size_t>(std::count_if(
      effects->begin(), effects->end(), [](const auto& one) { return is_control(one.effect); }));
}

// Behind it the same text may be about other tables, or other values.
bool changes_meaning(const sql::statement& one) {
  using enum sql::effect;
  const bool sets = one.effect == set || one.effect == set_local || one.effect == reset;
  return one.effect == reset_all || one.effect == discard_all || one.unknown_path ||
         (sets && (one.name == "search_path" || session::is_identity(one.name) ||
                   one.name == "standard_conforming_strings"));
}

// Names in what comes behind it may mean other tables.
bool changes_names(const session::effects& effects) {
  if (!effects) return false;
  bool changed = false;
  for (const auto& one : *effects) {
    if (changed && one.effect == sql::effect::none) return true;
    changed = changed || changes_meaning(one);
  }
  return false;
}

// Each Bind is followed by the Execute of its portal, and there is no other Execute.
bool runs_what_it_binds(const unit& now) {
  std::optional<std::string_view> bound;
  for (const auto& part : now.parts) {
    if (part.type == fe::bind) {
      const auto sent = wire::read_bind(part.body);
      if (!sent || bound) return false;
      bound = sent->portal;
    } else if (part.type == fe::execute) {
      const auto sent = wire::read_execute(part.body);
      if (!sent || bound != sent->portal) return false;
      bound.reset();
    }
  }
  return !bound;
}

// Whose schema comes first depends on who the session is; no path stands for the default one.
bool names_user(std::string_view path) {
  return path.empty() || path.find("$user") != path.npos;
}

pg_error two_shards(std::uint32_t first, std::uint32_t second) {
  return {"0A000",
          "the statements of one transaction go to different shards (" + std::to_string(first) +
              " and " + std::to_string(second) + ")",
          "Begin the transaction with BEGIN, or send Sync between statements for different shards.",
          {}};
}

}  // namespace

// Statements that need no particular shard always use the same one for a client.
std::uint32_t client::own_shard() const {
  const auto& serving = endpoint_->serving;
  return endpoint_->sharded && !serving.empty() ? serving[slot_ % serving.size()] : 0;
}

bool client::read_unit(byte_span bytes, unit& into) {
  std::vector<std::pair<std::string_view, statement_ref>> parsed;
  const auto look_up = [&](std::string_view name) -> statement_ref {
    for (auto it = parsed.rbegin(); it != parsed.rend(); ++it) {
      if (it->first == name) return it->second;
    }
    if (name.empty()) return unnamed_;
    const auto* known = find_prepared(name);
    return known != nullptr ? *known : nullptr;
  };
  std::size_t at = 0;
  while (true) {
    wire::frame frame;
    const auto rest = bytes.subspan(at);
    if (wire::peek(rest, frame) != wire::frame_state::complete) return false;
    if (rest.size() < frame.total()) {
      unit_need_ = at + frame.total();
      return false;
    }
    unit::part part{frame.type, rest.subspan(wire::header_size, frame.length), nullptr};
    at += frame.total();
    switch (frame.type) {
      case fe::query:
      case fe::function_call:
        // After messages of the extended protocol without a Sync it is a unit of its own.
        if (!into.parts.empty()) return true;
        into.simple = true;
        into.parts.push_back(part);
        into.bytes = at;
        return true;
      case fe::parse:
        if (const auto sent = wire::read_parse(part.body)) {
          part.target = cached_statement(*sent);
          parsed.emplace_back(sent->name, part.target);
        }
        break;
      case fe::bind:
        if (const auto sent = wire::read_bind(part.body)) part.target = look_up(sent->statement);
        break;
      case fe::describe:
        if (const auto sent = wire::read_described(part.body); sent && sent->what == 'S') {
          part.target = look_up(sent->name);
        }
        break;
      case fe::execute:
        ++into.executes;
        break;
      case fe::close:
      case fe::sync:
      case fe::flush:
      case fe::copy_data:
      case fe::copy_done:
      case fe::copy_fail:
        break;
      default:
        // Terminate, or what no client may send: no Sync need follow it, so it waits for none.
        if (!into.parts.empty()) return true;
        into.parts.push_back(part);
        into.bytes = at;
        return true;
    }
    into.parts.push_back(part);
    into.bytes = at;
    if (frame.type == fe::sync || frame.type == fe::flush) {
      into.ends_with_sync = frame.type == fe::sync;
      return true;
    }
  }
}

// By which names are read: what the transaction has set goes before what the session has.
std::string_view client::search_path() const {
  const auto* set = script_.search_path();
  const bool by_default = set != nullptr && set->size() == 7 && starts_with_word(*set, "default");
  if (set != nullptr ? set->empty() : shadow_->path_unknown()) return plan::unknown_path;
  std::string_view path;
  if (set != nullptr && !by_default) {
    path = *set;
  } else if (const auto& session = by_default ? shadow_->base() : shadow_->current();
             const auto* known = session->find("search_path")) {
    path = std::string_view(*known).substr(1);
  }
  return is_another_role() && names_user(path) ? plan::unknown_path : path;
}

// Something that the server has not answered yet decides what names and literals mean.
bool client::meaning_in_doubt() const {
  if (server_ == nullptr || server_->ledger.empty()) return false;
  const bool undoes = script_.search_path() != nullptr || script_.changes_role() ||
                      local_settings_ || shadow_->undecided();
  return server_->ledger.pending([undoes](const sql::statement& one) {
    using enum sql::effect;
    return changes_meaning(one) || (undoes && (one.effect == commit || one.effect == rollback ||
                                               one.effect == rollback_to));
  });
}

bool client::is_another_role() const {
  const auto& now = *shadow_->current();
  if (now.entries.empty() && !script_.open()) return false;
  return now.find("role") != nullptr || now.find("session_authorization") != nullptr ||
         script_.changes_role();
}

// False: suspended until the router has answered. `into` stays null when the parser does not know
// the syntax; the error then says so.
bool client::plan_statement(std::string_view sql, byte_span types, statement* remember,
                            plan_ref& into) {
  const bool cached = endpoint_->database.dispatch != "always" && unsettled_.empty();
  auto& key = worker_.plan_key();
  key.assign(endpoint_->database.name).push_back('\0');
  key.append(endpoint_->user.name).push_back('\0');
  key.append(search_path()).push_back('\0');
  const auto scope_length = key.size();
  for (const auto& [text, answer] : answers_) {
    if (std::string_view(text).starts_with(sql) &&
        std::string_view(text).substr(sql.size()) == as_text(types)) {
      into = answer;
      return true;
    }
  }
  if (cached && remember != nullptr && remember->plan && remember->plan->epoch == worker_.epoch() &&
      remember->plan->scope == std::string_view(key).substr(0, scope_length)) {
    worker_.counters().plans_cached.add();
    into = remember->plan;
    return true;
  }
  auto& shape = worker_.shape();
  sql::find_shape(sql, standard_strings(), shape);
  worker_.set_shaped(sql);
  key.push_back(standard_strings() ? '1' : '0');
  key.append(as_text(types)).push_back('\0');
  key.append(shape.text);
  if (cached && shape.complete) {
    if ((into = worker_.plans().find(key, worker_.epoch()))) {
      worker_.counters().plans_cached.add();
      if (remember != nullptr) remember->plan = into;
      return true;
    }
  }
  ask_plan(sql, types, cached && shape.complete ? key : std::string{}, key.substr(0, scope_length));
  return false;
}

void client::ask_plan(std::string_view sql, byte_span types, std::string key, std::string scope) {
  worker_.counters().plans_cold.add();
  set_state(state::planning);
  plan::request request;
  request.database = endpoint_->database.name;
  request.user = endpoint_->user.name;
  request.search_path = search_path();
  request.sql = sql;
  request.unsettled = unsettled_;
  for (std::size_t i = 0; i + 4 <= types.size(); i += 4) {
    request.parameter_types.push_back(load_be<std::uint32_t>(types.data() + i));
  }
  for (const auto& literal : worker_.shape().literals)
    request.literal_offsets.push_back(literal.offset);
  // Without a tree the parser does not know the syntax: the router decides what that means.
  // With standard_conforming_strings off it would read backslashes as the server does not.
  if (!worker_.shape().backslashes) {
    if (auto tree = sql::parse_tree(request.sql)) request.tree = std::move(*tree);
  }
  std::string payload;
  plan::encode(request, payload);
  auto& owner = worker_;
  const auto pid = worker_.cancel_pid(slot_);
  const auto serial = serial_;
  std::string text(sql);
  text.append(as_text(types));
  const auto limit =
      std::chrono::milliseconds(std::max<std::int64_t>(1, worker_.settings().checkout_timeout));
  worker_.router().ask(
      bus::kind::plan_request, as_bytes(payload), limit,
      [&owner, pid, serial, asked = worker_.loop().now(), key = std::move(key),
       scope = std::move(scope), text = std::move(text)](result<bus::envelope> reply) {
        auto* asker = owner.client_of(pid);
        owner.counters().plan.observe_us(static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::microseconds>(owner.loop().now() - asked)
                .count()));
        pg_error why;
        plan_ref made;
        if (!reply) {
          why = reply.error();
        } else if (auto answer = plan::decode_answer(reply->payload); !answer) {
          why = {"08P01", "the router's plan cannot be read: " + answer.error(), {}, {}};
        } else {
          auto fresh = std::make_shared<cached_plan>();
          fresh->epoch = answer->epoch;
          fresh->scope = scope;
          fresh->plan = std::move(answer->plan);
          made = fresh;
          if (!key.empty() && fresh->epoch == owner.epoch()) owner.plans().insert(key, made);
        }
        if (asker == nullptr || asker->serial_ != serial || asker->state_ != state::planning)
          return;
        if (!made) {
          asker->set_state(state::waiting);
          asker->not_granted(why);
        } else {
          if (key.empty() || made->epoch != owner.epoch()) asker->answers_.emplace_back(text, made);
          asker->set_state(state::ready);
          asker->resume();
        }
        owner.run_scheduled();
      });
}

namespace {

// Leaves what comes up to the first Execute; or, where there is none, before the Sync.
void cut_unit(unit& now, byte_span bytes) {
  const auto first = std::find_if(now.parts.begin(), now.parts.end(),
                                  [](const auto& part) { return part.type == fe::execute; });
  if (first != now.parts.end()) {
    now.bytes = static_cast<std::size_t>(first->body.data() + first->body.size() - bytes.data());
    now.parts.erase(first + 1, now.parts.end());
    now.executes = 1;
  } else if (now.ends_with_sync && now.parts.size() > 1) {
    now.bytes -= wire::header_size;
    now.parts.pop_back();
  } else {
    return;
  }
  now.ends_with_sync = false;
}

// Does anything but the end of the batch follow the first Execute?
bool goes_on(const unit& now) {
  const auto first = std::find_if(now.parts.begin(), now.parts.end(),
                                  [](const auto& part) { return part.type == fe::execute; });
  return first != now.parts.end() && std::any_of(first + 1, now.parts.end(), [](const auto& part) {
           return part.type != fe::sync && part.type != fe::flush;
         });
}

}  // namespace

client::routed client::route(byte_span bytes, bool stepwise) {
  if (server_ != nullptr && server_->ledger.skipping()) {
    if (batch_ && static_cast<char>(bytes[0]) == fe::sync) return sync_first();
    // The server throws everything away up to Sync; nothing is to be decided.
    unit_left_ = 1;
    unit_shard_ = server_->pool().description().shard;
    return routed::go;
  }
  if (endpoint_->sharded && meaning_in_doubt()) {
    unit_left_ = 0;
    settle();
    return routed::suspended;
  }
  unit now;
  if (!read_unit(bytes, now)) return routed::need_more;
  if (batch_ && now.parts.front().type == fe::sync) return end_batch(now, bytes);
  if ((batch_ || stepwise) && !now.simple) cut_unit(now, bytes);
  worker_.set_shaped({});
  aim target;
  pg_error why;
  bool refused = false, fenced = false;
  const plan::plan* everywhere = nullptr;
  plan_ref keep, copies;
  session::effects executed;
  std::string_view text;
  std::size_t controls = 0;
  bool writes = false, names_portals = false, other_meaning = false;
  const auto join = [&](const plan_ref& planned, std::string_view sql, const unit::part& from,
                        bool runs) {
    const auto& p = planned->plan;
    const byte_span* bind = from.type == fe::bind ? &from.body : nullptr;
    const bool copy =
        p.destination == destination::copy_in || p.destination == destination::copy_out;
    if (runs && copy && endpoint_->sharded) copies = planned;
    if (refused || !endpoint_->sharded) return;
    writes = writes || (runs && p.access == plan::access::write);
    if (p.destination == destination::refused) {
      // What is only prepared and described is the same on any shard: drivers ask so for types.
      if (!runs) return;
      why = p.error;
      refused = true;
    } else if (copy) {
      if (!runs) return;
      const auto& owners = *endpoint_->owners;
      fenced = fenced || !owners.fence.empty() || unseen();
      if (owners.moving && p.destination == destination::copy_out) {
        why = {"55006", "rows of the table may be on two shards while rows are being moved",
               "Try again when it is over: pgsled reshard status.", {}};
        refused = true;
      }
    } else if (p.destination == destination::all_shards) {
      if (!runs) return;
      if (target.where == aim::kind::shard) {
        why = {"0A000",
               "a statement for all shards cannot run in a transaction that has begun on one",
               {},
               {}};
        refused = true;
      }
      target.where = aim::kind::all;
      fenced = fenced || !endpoint_->owners->fence.empty() || unseen();
      keep = planned;
      everywhere = &keep->plan;
      if (!p.rows.table.empty()) now.writes.push_back({&from, planned});
    } else if (p.destination == destination::one_shard && runs) {
      std::uint32_t shard = 0;
      bool in_fence = false;
      if (target.where == aim::kind::all) {
        why = {"0A000",
               "a statement for all shards cannot share a batch with one for a single shard",
               "Send Sync between them.",
               {}};
        refused = true;
      } else if (!key_shard(p, sql, bind, shard, in_fence, why)) {
        refused = true;
      } else if (target.where == aim::kind::shard && target.shard != shard) {
        why = two_shards(target.shard, shard);
        refused = true;
      } else {
        target = {aim::kind::shard, shard};
      }
      fenced = fenced || in_fence || unseen();
    }
  };
  encoding_uncertain_ = false;
  for (const auto& part : now.parts) {
    plan_ref planned;
    if (part.type == fe::query) {
      const auto sql = wire::read_query(part.body);
      if (!sql) continue;
      text = *sql;
      if (!plan_statement(*sql, {}, nullptr, planned)) return routed::suspended;
      if (sql::may_affect_session(*sql)) {
        auto found = std::make_shared<std::vector<sql::statement>>();
        sql::find_statements(*sql, standard_strings(), *found);
        executed = found;
        controls += count_controls(executed);
      }
      encoding_uncertain_ = executed && !executed->empty();
      join(planned, *sql, part, true);
    } else if (part.target && (part.type == fe::parse || part.type == fe::bind)) {
      const auto& statement = part.target;
      if (!plan_statement(statement->sql, as_bytes(statement->types), statement.get(), planned)) {
        return routed::suspended;
      }
      const bool runs = part.type == fe::bind;
      if (runs) {
        names_portals = names_portals || part.body[0] != 0;
        // What comes behind a SET in the same unit is read under a setting that is not known yet.
        encoding_uncertain_ = encoding_uncertain_ || (executed && !executed->empty());
        executed = statement->effects;
        controls += count_controls(executed);
        text = statement->sql;
      }
      join(planned, statement->sql, part, runs);
      if (other_meaning && runs && !refused && endpoint_->sharded) {
        why = {"0A000", "what stands behind a change of search_path, of the role or of "
               "standard_conforming_strings in one batch may mean something else",
               "Send Sync behind SET.", {}};
        refused = true;
      }
      other_meaning = other_meaning || (runs && executed &&
                                        std::any_of(executed->begin(), executed->end(),
                                                    changes_meaning));
    } else if (part.type == fe::function_call) {
      why = {"0A000", "function calls by the fast path cannot be placed on a shard", {}, {}};
      refused = endpoint_->sharded;
    }
  }
  const bool as_a_whole = target.where == aim::kind::all || copies || controls > 0;
  if (endpoint_->sharded && as_a_whole && !refused && !now.simple && !runs_what_it_binds(now)) {
    why = {"0A000", "what concerns several shards is bound here and executed elsewhere",
           "Send Bind and Execute of each such statement together, without Sync or Flush between "
           "them.", {}};
    refused = true;
  }
  if (copies && !now.simple && !stepwise && !batch_ && goes_on(now)) {
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
  if ((target.where == aim::kind::all || refused) && endpoint_->sharded &&
      begin_alone(now, bytes)) {
    return routed::done;
  }
  if (target.where == aim::kind::all && now.executes > 1 && !refused &&
      now.writes.size() != now.executes) {
    why = {"0A000", "a statement for all shards cannot share a batch with other statements",
           "Send Sync between them.", {}};
    refused = true;
  }
  // In a transaction what cannot go to one place together goes step by step.
  const bool elsewhere = target.where == aim::kind::shard && server_ != nullptr &&
                         server_->pool().description().shard != target.shard;
  const bool apart = refused || (controls > 0 && (spread_ || elsewhere));
  if (now.simple && endpoint_->sharded) {
    const bool renamed = changes_names(executed);
    const bool again = controls > 0 && server_ == nullptr && virtual_status_ == 'E';
    if (apart || renamed || again) {
      const auto how = take_apart(now, text, executed);
      if (how != routed::go) return how;
    }
    if (renamed && !refused) {
      why = {"0A000", "what stands behind SET search_path in one Query may be about other tables",
             "Send SET by itself.", {}};
      refused = true;
    }
  }
  if (apart && now.executes > 1 && !stepwise && !batch_ && (spread_ || status() != 'I')) {
    return route(bytes, true);
  }
  answers_.clear();
  unit_left_ = now.bytes;
  unit_shard_ = own_shard();
  if (!endpoint_->sharded) return routed::go;
  if (steps_ && !refused && refuse_in_steps(now, executed, text)) return routed::done;
  if (batch_ && now.simple && !steps_ && !refused) {
    why = {"0A000", "a Query stands behind COPY on several shards in one batch",
           "Send Sync before it.", {}};
    refused = true;
  }
  if (batch_ && !refused && only_effect(executed) != nullptr &&
      executed->front().effect == sql::effect::begin && (now.executes == 1 || steps_)) {
    // From here on it is a transaction of the client's own.
    if (executed->front().value.size() <= std::string_view("START TRANSACTION;").size()) {
      batch_ = false;
      answer_unit(now, starts_with_word(text, "start") ? "START TRANSACTION" : "BEGIN");
      return routed::done;
    }
    why = {"0A000",
           steps_ ? "BEGIN with options stands behind other statements"
                  : "BEGIN with options stands in a batch with COPY on several shards",
           steps_ ? "Send BEGIN by itself." : "Send BEGIN and Sync before it.",
           {}};
    refused = true;
  }

  if (refused) {
    worker_.counters().plans_refused.add();
    if (server_ != nullptr && !server_->ledger.empty()) {
      // Its replies come first.
      unit_left_ = 0;
      settle();
      return routed::suspended;
    }
    if (now.simple && !steps_) batch_ = false;   // the client sees a transaction that has failed
    refuse_unit(now, why);
    return routed::done;
  }
  if (endpoint_->owners->moving) {
    const auto held = hold_at_fence(fenced);
    if (held != routed::go) {
      unit_left_ = 0;
      return held;
    }
  }
  if (copies) return route_copy(now, bytes, copies, text);
  const auto* effect = only_effect(executed);
  names_portals = names_portals || starts_with_word(text, "declare");
  if (spread_) {
    if (portal_shards_ && target.where == aim::kind::any) follow_portals(now, text, target);
    const auto how = route_shards(now, bytes, target, executed, controls, text, everywhere);
    if (how == routed::go && writes) spread_->wrote(server_->pool().description().shard);
    if (how == routed::go && names_portals) note_portals(now, text, unit_shard_);
    return how;
  }
  if (target.where == aim::kind::all && (now.simple || now.executes > 0)) {
    return route_everywhere(now, bytes, *everywhere, text);
  }
  if (server_ == nullptr && effect != nullptr) {
    switch (effect->effect) {
      case sql::effect::begin:
        if (virtual_status_ == 'I' && (now.executes == 1 || now.simple)) {
          virtual_status_ = 'T';
          return virtual_unit(
              now, *effect,
              text.starts_with('S') || text.starts_with('s') ? "START TRANSACTION" : "BEGIN");
        }
        break;
      case sql::effect::commit:
      case sql::effect::rollback:
        if (virtual_status_ != 'I' && (now.executes == 1 || now.simple)) {
          const bool failed = virtual_status_ == 'E';
          virtual_status_ = 'I';
          return virtual_unit(
              now, *effect,
              failed || effect->effect == sql::effect::rollback ? "ROLLBACK" : "COMMIT");
        }
        break;
      case sql::effect::savepoint:
      case sql::effect::set_local:
        // Replayed with BEGIN wherever the transaction begins.
        if (virtual_status_ == 'T' && (now.executes == 1 || now.simple) &&
            !starts_with_word(text, "set constraints")) {
          if (!script_.has_room(text.size() + 32)) break;
          local_settings_ = local_settings_ || changes_parsing(*effect);
          return virtual_unit(now, *effect,
                              effect->effect == sql::effect::savepoint ? "SAVEPOINT" : "SET");
        }
        break;
      case sql::effect::rollback_to:
        // What has failed was refused before it came to a server.
        if (virtual_status_ == 'E' && (now.executes == 1 || now.simple)) {
          if (!script_.has_savepoint(effect->name)) {
            const auto what = "savepoint \"" + effect->name + "\" does not exist";
            refuse_unit(now, {"3B001", what, {}, {}});
            return routed::done;
          }
          virtual_status_ = 'T';
          return virtual_unit(now, *effect, "ROLLBACK");
        }
        break;
      default:
        break;
    }
  }
  if (virtual_status_ == 'E' && server_ == nullptr && (now.simple || now.executes > 0)) {
    refuse_unit(
        now,
        pg_error{"25P02",
                 "current transaction is aborted, commands ignored until end of transaction block",
                 {},
                 {}});
    return routed::done;
  }
  wrote_ = wrote_ || writes;
  if (target.where == aim::kind::any) {
    unit_shard_ = server_ != nullptr ? server_->pool().description().shard : own_shard();
    if (names_portals) note_portals(now, text, unit_shard_);
    return routed::go;
  }
  unit_shard_ = target.shard;
  if (server_ == nullptr || server_->pool().description().shard == target.shard) {
    if (names_portals) note_portals(now, text, target.shard);
    return routed::go;
  }
  if (!server_->ledger.empty()) {
    unit_left_ = 0;
    settle();
    return routed::suspended;
  }
  const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
  if (movable() && !bound) return settle_elsewhere();
  if (status() != 'I' && controls == 0) return grow(now, target.shard);
  if (bound && status() == 'I') {
    refuse_unit(now, {"0A000",
                      "the session is bound to its connection of shard " +
                          std::to_string(server_->pool().description().shard) +
                          " and this statement goes to shard " + std::to_string(target.shard),
                      "Run it in another session; or, unless pooling is by session, in a "
                      "transaction, which may go to both.",
                      {}});
    return routed::done;
  }
  refuse_unit(now, two_shards(server_->pool().description().shard, target.shard));
  return routed::done;
}

// While rows of the database are moved, a worker that the router has given up may know an old map
// and nothing of a fence. Without the router it runs nothing by key, transactions that are open
// included.
bool client::unseen() const {
  return endpoint_->owners->moving && !worker_.router().present();
}

// Everything of a database waits: transactions that begin, while it is held; all of them, while a
// move to other servers is registered and the router is not heard. True: not now.
bool client::held_back(char type, output& out) {
  const auto& owners = *endpoint_->owners;
  const bool alone = owners.leaving && !worker_.router().present();
  if ((owners.held.empty() && !alone) || skip_to_sync_ || type == fe::copy_data ||
      type == fe::copy_done || type == fe::copy_fail) {
    return false;
  }
  // The rest of a batch whose beginning has been let through.
  if (server_ != nullptr && server_->ledger.unsynced() && !alone) return false;
  out.flush(server_);
  if (server_ != nullptr && !server_->ledger.empty()) {
    settle();
    return true;
  }
  const bool open = spread_ != nullptr || (server_ != nullptr && in_transaction());
  before_fence_ = before_fence_ && open;
  if (open && !alone) return false;
  // It may be one of the old servers'.
  if (server_ != nullptr && may_let_go()) let_go();
  wait_at_fence();
  return true;
}

// Whether a unit belongs to a transaction that is older than the fence is known only when the
// server owes nothing.
client::routed client::hold_at_fence(bool fenced) {
  if (!fenced && !before_fence_) {
    fenced_since_ = {};
    return routed::go;
  }
  if (server_ != nullptr && !server_->ledger.empty()) {
    settle();
    return routed::suspended;
  }
  const bool open = spread_ != nullptr || (server_ != nullptr && in_transaction());
  before_fence_ = before_fence_ && open;
  if (!fenced || (before_fence_ && !unseen())) {
    fenced_since_ = {};
    return routed::go;
  }
  wait_at_fence();
  return routed::suspended;
}

void client::wait_at_fence() {
  if (fenced_since_ == net::time_point{}) {
    fenced_since_ = worker_.loop().now();
    worker_.counters().fence_waits.add();
  }
  set_state(state::fenced);
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
  }
  server_->send(sync);
  return routed::suspended;
}

void client::refuse_unit(const unit& refused, const pg_error& why, std::string_view fields) {
  if (refused.simple) {
    refuse(why, true, fields);
    return;
  }
  refuse(why, false, fields);
  // The rest of the unit is skipped by us; its Sync is answered as any other. A transaction that
  // is being failed on the server answers after that.
  if (state_ == state::refusing) {
    owes_ready_ = refused.ends_with_sync;
    skip_to_sync_ = !refused.ends_with_sync;
  } else if (refused.ends_with_sync) {
    skip_to_sync_ = false;
    std::string ready;
    wire::write_ready(ready, status());
    write(ready);
  }
}

// A batch of the extended protocol becomes a transaction over shards, which its Sync ends: nothing
// has run yet, or only what has joined spread_ already.
void client::begin_batch() {
  sql::statement begin;
  begin.effect = sql::effect::begin;
  begin.value = "BEGIN";
  batch_ = true;
  virtual_status_ = 'T';
  if (server_ != nullptr) let_go();
  virtual_status_ = 'T';
  script_.succeeded(begin, shadow_->current());
  shadow_->succeeded(begin, "BEGIN", worker_.pairs());
}

client::routed client::end_batch(const unit& now, byte_span bytes, bool has_failed) {
  if (server_ != nullptr && !server_->ledger.empty()) {
    unit_left_ = 0;
    settle();
    return routed::suspended;
  }
  if (server_ != nullptr && server_->ledger.unsynced()) return sync_first();
  skip_to_sync_ = batch_ = false;
  unit_left_ = now.bytes;
  const bool failed = status() == 'E' || has_failed;
  sql::statement end;
  end.effect = sql::effect::commit;
  if (server_ == nullptr && !spread_) {
    virtual_status_ = 'I';
    return virtual_unit(now, end, failed ? "ROLLBACK" : "COMMIT");
  }
  // One server alone is a transaction over shards with one leg.
  pg_error none;
  if (!spread_ && !spread_out(!script_.complete(), none)) {
    refuse_unit(now, none);
    return routed::done;
  }
  end_shards(std::string(as_text(bytes.first(now.bytes))), end, !failed);
  return routed::done;
}

// A BEGIN at the head of a batch (drivers send it so) that cannot go to one shard as a whole is
// answered by itself; what is behind it is the next unit.
bool client::begin_alone(const unit& now, byte_span bytes) {
  if (server_ != nullptr || spread_ || virtual_status_ != 'I') return false;
  unit head;
  const sql::statement* begin = nullptr;
  for (const auto& part : now.parts) {
    head.parts.push_back(part);
    if (part.type == fe::bind) {
      begin = begin == nullptr && part.target ? only_effect(part.target->effects) : nullptr;
      if (begin == nullptr || begin->effect != sql::effect::begin) return false;
    }
    if (part.type != fe::execute) continue;
    if (begin == nullptr || now.executes < 2) return false;
    head.executes = 1;
    head.bytes = static_cast<std::size_t>(part.body.data() + part.body.size() - bytes.data());
    break;
  }
  if (head.bytes == 0) return false;
  unit_left_ = head.bytes;
  virtual_status_ = 'T';
  virtual_unit(head, *begin,
               starts_with_word(begin->value, "start") ? "START TRANSACTION" : "BEGIN");
  return true;
}

client::routed client::virtual_unit(const unit& answered, const sql::statement& done,
                                    std::string_view tag) {
  ++counts_.queries;
  worker_.counters().queries.add();
  script_.succeeded(done, shadow_->current());
  unrun_ = virtual_status_ != 'I';
  shadow_->succeeded(done, tag, worker_.pairs());
  if (virtual_status_ == 'I') shadow_->ready('I');
  answer_unit(answered, tag);
  return routed::done;
}

// The replies to a unit whose statements have been dealt with: with `rows`, as that says; else they
// return no rows, and a Query of several statements has as many tags, separated by zero bytes.
void client::answer_unit(const unit& answered, std::string_view tag, const same_rows* rows) {
  namespace be = wire::backend;
  std::string bytes;
  std::size_t described = 0, executed = 0;
  std::vector<std::string_view> portals;   // of the Binds
  for (const auto& part : answered.parts) {
    switch (part.type) {
      case fe::query:
        if (rows != nullptr) {
          const auto& told = rows->told(0);
          bytes.append(told.columns).append(told.rows);
          tag = told.tag;
        }
        for (std::size_t at = 0; at <= tag.size();) {
          const auto end = std::min(tag.find('\0', at), tag.size());
          wire::write_command_complete(bytes, tag.substr(at, end - at));
          at = end + 1;
        }
        wire::write_ready(bytes, status());
        break;
      case fe::parse:
        if (const auto sent = wire::read_parse(part.body)) {
          if (sent->name.empty()) {
            unnamed_ = part.target;
          } else {
            if (!prepared_)
              prepared_ = std::make_unique<std::unordered_map<std::string, statement_ref>>();
            prepared_->insert_or_assign(std::string(sent->name), part.target);
          }
        }
        wire::write_empty(bytes, be::parse_complete);
        break;
      case fe::bind:
        if (const auto sent = wire::read_bind(part.body)) portals.push_back(sent->portal);
        wire::write_empty(bytes, be::bind_complete);
        break;
      case fe::describe:
        if (rows != nullptr) {
          const auto sent = wire::read_described(part.body);
          const bool statement = sent && sent->what == 'S';
          std::size_t at = portals.size();
          while (sent && at > 1 && portals[at - 1] != sent->name) --at;
          const auto& told = statement ? rows->described(described++)
                                       : rows->told(std::max<std::size_t>(at, 1) - 1);
          bytes.append(told.parameters).append(told.columns);
          if (told.columns.empty()) wire::write_empty(bytes, be::no_data);
          break;
        }
        if (const auto sent = wire::read_described(part.body); sent && sent->what == 'S') {
          wire::writer(bytes, be::parameter_description).i16(0);
        }
        wire::write_empty(bytes, be::no_data);
        break;
      case fe::execute:
        if (rows != nullptr) {
          const auto& told = rows->told(executed++);
          bytes.append(told.rows);
          tag = told.tag;
          if (told.suspended) {
            wire::write_empty(bytes, be::portal_suspended);
            break;
          }
        }
        wire::write_command_complete(bytes, tag);
        break;
      case fe::close:
        if (const auto sent = wire::read_described(part.body);
            sent && sent->what == 'S' && prepared_) {
          prepared_->erase(std::string(sent->name));
        }
        wire::write_empty(bytes, be::close_complete);
        break;
      case fe::sync:
        wire::write_ready(bytes, status());
        break;
      default:
        break;
    }
  }
  write(bytes);
}

}  // namespace pgsled::frontend
