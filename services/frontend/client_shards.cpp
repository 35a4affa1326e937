// A transaction over several shards as its client sees it: which leg a unit of messages goes to,
// what all legs are told, and the end. The legs are shard_transaction's; one of them at a time is
// lent to the client and is its server_.

#include <algorithm>
#include <numeric>

#include "common/log/json_escape.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/client.hpp"
#include "services/frontend/same_rows.hpp"
#include "services/frontend/shard_transaction.hpp"
#include "services/frontend/unit.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

namespace {

pg_error aborted() {
  return {"25P02",
          "current transaction is aborted, commands ignored until end of transaction block",
          {},
          {}};
}

// Sequences made with a sharded table give every shard values of its own: shard s counts from the
// s-th value on in steps of 1024 (START 1: s+1, s+1+1024, …), so that rows can move between shards
// without a collision. The statement may have found them there (IF NOT EXISTS): one that has given a
// value, or been set to one, or is somebody else's, stays as it is, and one that counts so already.
std::string spreading_sql(const std::vector<std::string>& tables, std::size_t shard) {
  std::string names;
  for (const auto& name : tables) {
    names += (names.empty() ? "" : ",") + session::quote_literal(name);
  }
  return "DO $pgsled$ DECLARE r record; fresh boolean; BEGIN FOR r IN SELECT "
         "s.seqrelid::pg_catalog.regclass::text AS name, s.seqstart AS start, "
         "s.seqincrement AS step "
         "FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid "
         "WHERE s.seqincrement % 1024 <> 0 AND pg_catalog.pg_has_role(c.relowner, 'USAGE') "
         "AND (s.seqrelid IN (SELECT "
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
         "pg_catalog.format('SELECT NOT is_called AND last_value = %s FROM %s', r.start, r.name) "
         "INTO fresh; CONTINUE WHEN NOT fresh; EXECUTE "
         "pg_catalog.format('ALTER SEQUENCE %s INCREMENT BY %s START WITH %s RESTART', r.name, "
         "r.step * 1024, r.start + r.step * " +
         std::to_string(shard) + "); END LOOP; END $pgsled$";
}

std::string lower(std::string_view text) {
  std::string made(text);
  std::transform(made.begin(), made.end(), made.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return made;
}

// What cannot be done for several shards at once; empty: nothing of the kind.
std::string_view beyond_shards(const sql::statement& what, std::string_view text) {
  using enum sql::effect;
  const auto said = lower(text.substr(std::min<std::size_t>(what.offset, text.size())));
  switch (what.effect) {
    case commit:
    case rollback:
      if (said.starts_with("prepare")) return "PREPARE TRANSACTION";
      if (said.find("chain") != said.npos && said.find("no") == said.npos) return "AND CHAIN";
      return {};
    case set:
    case set_local:
      // An answer with a row is made by one server only.
      return said.starts_with("set") ? std::string_view{} : "set_config()";
    default:
      return {};
  }
}

// The cursor that a DECLARE, FETCH, MOVE or CLOSE names; empty when it is none of these.
std::string cursor_of(std::string_view sql, std::string_view verb) {
  const auto words = lower(sql.substr(0, sql.find_last_not_of("; \t\n\r") + 1));
  if (!words.starts_with(verb)) return {};
  // The last word, but of DECLARE, where more follows, the second.
  const bool second = verb == "declare";
  const auto space = second ? words.find_first_not_of(" \t\n\r", verb.size()) - 1
                            : words.find_last_of(" \t\n\r");
  if (space >= words.size()) return {};
  const auto end = second ? words.find_first_of(" \t\n\r", space + 1) : words.size();
  const auto at = sql.substr(0, words.size()).substr(space + 1, end - space - 1);
  if (at.size() > 2 && at.front() == '"') return std::string(at.substr(1, at.size() - 2));
  return lower(at);
}

}  // namespace

// Portals and cursors stay where they were made: what comes for them later goes there.
void client::note_portals(const unit& now, std::string_view text, std::uint32_t shard) {
  const auto keep = [&](std::string name) {
    if (name.empty()) return;
    if (!portal_shards_) {
      portal_shards_ = std::make_unique<std::unordered_map<std::string, std::uint32_t>>();
    }
    portal_shards_->insert_or_assign(std::move(name), shard);
  };
  for (const auto& part : now.parts) {
    if (part.type != wire::frontend::bind) continue;
    if (const auto sent = wire::read_bind(part.body)) keep(std::string(sent->portal));
  }
  keep(cursor_of(text, "declare"));
}

void client::follow_portals(const unit& now, std::string_view text, aim& target) const {
  const auto follow = [&](const std::string& name) {
    const auto found = portal_shards_->find(name);
    if (found != portal_shards_->end()) target = {aim::kind::shard, found->second};
  };
  for (const auto* verb : {"fetch", "move", "close"}) {
    if (auto name = cursor_of(text, verb); !name.empty()) follow(name);
  }
  for (const auto& part : now.parts) {
    if (part.type == wire::frontend::execute) {
      if (const auto sent = wire::read_execute(part.body)) follow(std::string(sent->portal));
    } else if (part.type == wire::frontend::describe || part.type == wire::frontend::close) {
      const auto sent = wire::read_described(part.body);
      if (sent && sent->what == 'P') follow(std::string(sent->name));
    }
  }
}

void client::park() {
  if (server_ == nullptr) return;
  virtual_status_ = server_->ledger.status();
  const auto shard = server_->pool().description().shard;
  server_ = nullptr;
  spread_->park(shard);
}

void client::lend(std::uint32_t shard) {
  server_ = &spread_->lend(shard, *this);
  tell_parameters(server_->parameters);
}

// The server has taken messages of the extended protocol: it must not hold anything back while
// another shard's is spoken to.
client::routed client::sync_first() {
  unit_left_ = 0;
  set_state(state::settling);
  server_->ledger.add({session::owed::sync, true});
  std::string sync;
  wire::write_sync(sync);
  server_->send(sync);
  return routed::suspended;
}

// The unit needs a shard that is not in the transaction yet. The server owes nothing.
client::routed client::grow(const unit& now, std::uint32_t shard) {
  const auto refused = [&](const pg_error& why) {
    refuse_unit(now, why);
    return routed::done;
  };
  if (status() == 'E') return refused(aborted());
  if (endpoint_->mode == pool_mode::session) {
    return refused({"0A000", "in session pooling mode a transaction stays on one shard",
                    "Use pooler_mode = \"transaction\", or keys of one shard.", {}});
  }
  if (server_->ledger.unsynced()) return sync_first();
  if (pg_error why; !spread_out(false, why)) return refused(why);
  return join(shard);
}

bool client::spread_out(bool implicit, pg_error& why) {
  if (!implicit && !script_.complete()) {
    why = {"0A000",
           "the transaction cannot go to a second shard: how it has begun cannot be said again "
           "there",
           "Begin with BEGIN as the first statement of its message, without AND CHAIN, RESET or "
           "set_config() of a computed value before the second shard.",
           {}};
    return false;
  }
  if (own_settings_) {
    why = {"0A000",
           "the session has settings that cannot be said again on a second shard",
           "Instead of SET SESSION CHARACTERISTICS or set_config() of a computed value use SET, or "
           "DISCARD ALL before.",
           {}};
    return false;
  }
  // Of a batch, too: what a ROLLBACK brings back is how the session was before it.
  const auto before = script_.open() && script_.settings() ? script_.settings()
                                                           : shadow_->current();
  spread_ = std::make_unique<shard_transaction>(
      worker_, endpoint_, worker_.cancel_pid(slot_), before, !implicit,
      [this](const pg_error& lost) {
        server_ = nullptr;
        end(lost);
      });
  virtual_status_ = status();
  unrun_ = false;
  if (server_ == nullptr) return true;
  const auto first = server_->pool().description().shard;
  spread_->adopt(*std::exchange(server_, nullptr), wrote_);
  if (pinned_ || endpoint_->mode == pool_mode::session) bind_session(first);
  return true;
}

// The session has something on the server of this leg that it must find there afterwards.
void client::bind_session(std::uint32_t shard) {
  spread_->keep(shard);
  spread_->cannot_prepare(shard, "its session holds temporary objects, LISTEN or the like");
}

client::routed client::join(std::uint32_t shard) {
  unit_left_ = 0;
  set_state(state::spreading);
  spread_->join({shard}, script_.sql(), [this](const pg_error* why) {
    if (state_ != state::spreading) return;
    write(spread_->take_asides());
    if (why != nullptr) return not_granted(*why);
    set_state(state::ready);
    consume({});
    watch();
  });
  return routed::suspended;
}

client::routed client::route_shards(const unit& now, byte_span bytes, const aim& target,
                                    const session::effects& executed, std::size_t controls,
                                    std::string_view text, const plan::plan* everywhere) {
  const auto refused = [&](const pg_error& why) {
    refuse_unit(now, why);
    return routed::done;
  };
  // Nothing may be owed by the server when something happens on another.
  const auto settled = [&] {
    if (server_ == nullptr) return true;
    if (!server_->ledger.empty()) {
      unit_left_ = 0;
      settle();
      return false;
    }
    if (server_->ledger.unsynced()) {
      sync_first();
      return false;
    }
    return true;
  };
  const auto current = server_ != nullptr ? server_->pool().description().shard
                       : status() == 'E'           ? spread_->failed_leg()
                       : spread_->has(own_shard()) ? own_shard()
                                                   : spread_->shards().front();
  const auto only = executed && executed->size() == 1 ? &executed->front() : nullptr;
  if (controls > 0) {
    if (!settled()) return routed::suspended;
    if (only == nullptr || controls > 1 || now.executes > 1) {
      return refused({"0A000",
                      "in a transaction over several shards what concerns all of it cannot share "
                      "a message or a batch with other statements",
                      "Send BEGIN, COMMIT, SAVEPOINT, SET and the like by themselves.",
                      {}});
    }
    if (const auto what = beyond_shards(*only, text); !what.empty()) {
      return refused({"0A000",
                      std::string(what) + " is not possible in a transaction over several shards",
                      "Use plain COMMIT or ROLLBACK, and SET.",
                      {}});
    }
    using enum sql::effect;
    const bool failed = status() == 'E';
    if (only->effect == commit || only->effect == rollback) {
      end_shards(std::string(as_text(bytes.first(now.bytes))), *only,
                 only->effect == commit && !failed);
      return routed::done;
    }
    if (failed && only->effect != rollback_to) return refused(aborted());
    if (only->effect != begin && only->effect != discard_all) {
      tell_shards(std::string(as_text(bytes.first(now.bytes))), *only, text);
      return routed::done;
    }
    // BEGIN gets its warning, and DISCARD ALL its error, from one server.
  }
  if (target.where == aim::kind::all && (now.simple || now.executes > 0)) {
    if (!settled()) return routed::suspended;
    if (status() == 'E') return refused(aborted());
    return route_everywhere(now, bytes, *everywhere, text);
  }
  // In a failed transaction nothing but the leg that has failed is spoken to.
  const bool elsewhere = target.where == aim::kind::shard && target.shard != current;
  if (status() == 'E' && (elsewhere || server_ == nullptr) && (now.simple || now.executes > 0)) {
    if (!settled()) return routed::suspended;
    return refused(aborted());
  }
  const auto wanted = elsewhere && status() != 'E' ? target.shard : current;
  const bool pins = executed && std::any_of(executed->begin(), executed->end(), [](const auto& s) {
    return s.effect == sql::effect::pin;
  });
  if (pins && spread_->keeps() && spread_->kept() != wanted) {
    if (!settled()) return routed::suspended;
    return refused({"0A000",
                    "a session can be bound to the connection of one shard only, and this is "
                    "bound to shard " + std::to_string(spread_->kept()),
                    "Use temporary objects, LISTEN and the like on one shard.",
                    {}});
  }
  if (server_ == nullptr || wanted != current) {
    if (!settled()) return routed::suspended;
    park();
    if (!spread_->has(wanted)) return join(wanted);
    lend(wanted);
  }
  if (pins) bind_session(wanted);
  unit_shard_ = wanted;
  return routed::go;
}

// A statement (DDL and the like) for all shards: on one after the other in shard order, and
// committed only after it has succeeded on all.
client::routed client::route_everywhere(const unit& now, byte_span bytes, const plan::plan& planned,
                                        std::string_view text) {
  const auto refused = [&](const pg_error& why) {
    refuse_unit(now, why);
    return routed::done;
  };
  const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
  if (server_ != nullptr && !spread_) {
    if (!server_->ledger.empty()) {
      unit_left_ = 0;
      settle();
      return routed::suspended;
    }
    if (server_->quiet() && movable() && !bound) {
      let_go();
    } else if (movable() && !bound) {
      return settle_elsewhere();
    } else if (server_->ledger.unsynced()) {
      if (status() == 'I' && !light_) {
        return refused({"0A000",
                        "a statement for all shards cannot share a batch with other statements",
                        "Send Sync between them.",
                        {}});
      }
      return sync_first();
    }
  }
  if (status() == 'E') return refused(aborted());
  if (planned.own_transaction) {
    if (status() != 'I' || spread_) {
      return refused({"25001", "this statement cannot run inside a transaction block", {}, {}});
    }
    if (!now.simple && !now.ends_with_sync) {
      return refused({"0A000", "a statement that cannot run inside a transaction block is not "
                               "followed by Sync", "Send Sync behind it instead of Flush.", {}});
    }
  }
  std::shared_ptr<same_rows> writes;
  if (!now.writes.empty() && !read_writes(now, writes)) {
    return refused({"0A000",
                    "statements that write to every shard cannot share a batch with others, or be "
                    "executed in pieces",
                    "Send Sync between them, and execute each once, in the order of Bind.",
                    {}});
  }
  const bool implicit = status() == 'I' && !spread_;
  if (implicit && writes && !now.simple && !now.ends_with_sync) {
    // What comes up to the Sync would belong to the same transaction.
    return refused({"0A000",
                    "a statement that writes to every shard is not followed by Sync",
                    "Send Sync behind it instead of Flush, or begin a transaction with BEGIN.",
                    {}});
  }
  if (pg_error why; !spread_ && !spread_out(implicit, why)) return refused(why);
  if (writes) {
    write_everywhere(std::string(as_text(bytes.first(now.bytes))), std::move(writes), implicit);
    return routed::done;
  }
  run_everywhere(std::string(as_text(bytes.first(now.bytes))), planned, std::string(text),
                 implicit);
  return routed::done;
}

void client::run_everywhere(std::string unit_bytes, const plan::plan& planned, std::string sql,
                            bool implicit) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  defined_ = defined_ || planned.changes_catalog;
  note_unsettled(planned.unsettles);
  std::vector<std::uint32_t> all(endpoint_->database.shards);
  std::iota(all.begin(), all.end(), 0u);
  const auto spread_out = planned.spread_sequences_of;
  const auto unit_copy = std::make_shared<const std::string>(std::move(unit_bytes));
  spread_->join(std::move(all), implicit ? "BEGIN" : script_.sql(), [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_copy, {}, why, implicit);
    if (planned.own_transaction) return run_in_turn(unit_copy, sql);
    spread_->defined();
    spread_->tell_in_order([sql](std::uint32_t) { return sql; }, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      const auto tags = spread_->tags();
      if (error != nullptr || spread_out.empty()) {
        return ran_everywhere(*unit_copy, tags, error, implicit);
      }
      spread_->tell_in_order(
          [spread_out](std::uint32_t shard) { return spreading_sql(spread_out, shard); },
          [=, this](const pg_error* last) {
            if (state_ != state::spreading) return;
            ran_everywhere(*unit_copy, tags, last, implicit);
          });
    });
  });
}

// What cannot run inside a transaction. It is not undone where it has run.
void client::run_in_turn(std::shared_ptr<const std::string> unit_bytes, std::string sql) {
  const auto begun = std::make_shared<std::size_t>(0);
  const auto failed = std::make_shared<std::optional<pg_error>>();
  const auto over = [=, this](std::string tags) {
    spread_->tell("BEGIN", [=, this](const pg_error* why) {
      if (state_ != state::spreading) return;
      ran_everywhere(*unit_bytes, tags, *failed ? &**failed : why, true);
    });
  };
  spread_->tell("COMMIT", [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_bytes, {}, why, true);
    const auto said = [=](std::uint32_t) {
      ++*begun;
      return sql;
    };
    spread_->tell_in_order(said, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      if (error != nullptr) {
        auto& told = failed->emplace(*error);
        if (*begun > 1) {
          told.detail += (told.detail.empty() ? "It has run on " : "\nIt has run on ") +
                         std::to_string(*begun - 1) + " of " + std::to_string(spread_->size()) +
                         " shards already, and is not undone there.";
        }
        if (told.hint.empty()) {
          told.hint = "Say it again when the reason is gone: IF EXISTS and IF NOT EXISTS leave out "
                      "where it is done. An index that is left invalid has to be dropped first.";
        }
      }
      over(spread_->tags());
    });
  });
}

// Shards that have rows: of buckets, or of lists and ranges. A table that is on every shard is
// written there; to one that is only joining its rows are copied when buckets are moved to it.
std::vector<std::uint32_t> client::holding_shards() const {
  const auto& map = endpoint_->owners->bucket_map;
  std::vector<bool> holds(endpoint_->database.shards, map.empty());
  const auto add = [&](std::uint32_t shard) {
    if (shard < holds.size()) holds[shard] = true;
  };
  for (const auto shard : map) add(shard);
  for (const auto& mapping : endpoint_->database.mappings) {
    for (const auto& entry : mapping.list) add(entry.second);
    for (const auto& range : mapping.ranges) add(range.shard);
    if (mapping.fallback >= 0) add(static_cast<std::uint32_t>(mapping.fallback));
  }
  std::vector<std::uint32_t> all;
  for (std::uint32_t shard = 0; shard < holds.size(); ++shard) {
    if (holds[shard]) all.push_back(shard);
  }
  return all;
}

// False: more than statements that are each bound and executed once, in that order.
bool client::read_writes(const unit& now, std::shared_ptr<same_rows>& into) const {
  std::vector<same_rows::statement> run, described;
  std::vector<std::string_view> portals;
  std::size_t executes = 0;
  for (const auto& [from, planned] : now.writes) {
    const auto& rows = planned->plan.rows;
    if (now.simple) {
      const auto sql = wire::read_query(from->body);
      if (!sql) return false;
      run.push_back({std::string(*sql), {}, {}, rows, 0});
      continue;
    }
    const auto sent = wire::read_bind(from->body);
    if (!sent) return false;
    const auto names = sent->portal.size() + sent->statement.size() + 2;
    portals.push_back(sent->portal);
    run.push_back({from->target->sql, from->target->types,
                   std::string(as_text(from->body.subspan(names))), rows, 0});
  }
  std::size_t binds = 0;
  for (const auto& part : now.parts) {
    if (part.type == wire::frontend::bind) ++binds;
    if (part.type == wire::frontend::execute) {
      const auto sent = wire::read_execute(part.body);
      if (!sent || executes >= std::min(portals.size(), binds) ||
          sent->portal != portals[executes]) {
        return false;
      }
      run[executes++].limit = static_cast<std::size_t>(std::max(sent->max_rows, 0));
    }
    if (part.type != wire::frontend::describe) continue;
    const auto sent = wire::read_described(part.body);
    if (!sent) return false;
    if (sent->what == 'P') {
      const auto end = portals.begin() + static_cast<std::ptrdiff_t>(
                                             std::min(binds, portals.size()));
      if (std::find(portals.begin(), end, sent->name) == end) return false;
      continue;
    }
    const auto known = std::find_if(now.writes.begin(), now.writes.end(), [&](const auto& each) {
      return part.target && each.from->target == part.target;
    });
    if (known == now.writes.end()) return false;
    described.push_back({part.target->sql, part.target->types, {}, known->plan->plan.rows, 0});
  }
  if (!now.simple && (executes != run.size() || binds != run.size())) return false;
  into = std::make_shared<same_rows>(now.simple, standard_strings(), std::move(run),
                                     std::move(described));
  return true;
}

// Rows of tables that are on every shard.
void client::write_everywhere(std::string unit_bytes, std::shared_ptr<same_rows> writes,
                              bool implicit) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  auto shards = holding_shards();
  const auto unit_copy = std::make_shared<const std::string>(std::move(unit_bytes));
  spread_->join(shards, implicit ? "BEGIN" : script_.sql(), [=, this](const pg_error* why) {
    if (state_ != state::spreading) return;
    if (why != nullptr) return ran_everywhere(*unit_copy, {}, why, implicit, writes);
    for (const auto shard : shards) spread_->wrote(shard);
    spread_->converse(shards, writes, [=, this](const pg_error* error) {
      if (state_ != state::spreading) return;
      ran_everywhere(*unit_copy, {}, error, implicit, writes);
    });
  });
}

void client::ran_everywhere(const std::string& unit_bytes, std::string tags, const pg_error* error,
                            bool implicit, const std::shared_ptr<same_rows>& rows) {
  write(spread_->take_asides());
  if (!implicit) {
    if (spread_->over()) spread_.reset();   // not even one shard has joined
    return answer_shards(unit_bytes, tags, error, {}, rows.get());
  }
  if (error != nullptr) {
    spread_->rollback([this, unit_bytes, why = *error, rows](const pg_error*) {
      if (state_ != state::spreading) return;
      if (shards_ended({}, "ROLLBACK")) answer_shards(unit_bytes, {}, &why, {}, rows.get());
    });
    return;
  }
  spread_->commit(shadow_->current(), endpoint_->commits_statement,
                  [this, unit_bytes, tags, rows](const pg_error* why, const std::string& warning) {
                    if (state_ != state::spreading) return;
                    if (shards_ended({}, why == nullptr ? "COMMIT" : "ROLLBACK")) {
                      answer_shards(unit_bytes, tags, why, warning, rows.get());
                    }
                  });
}

void client::tell_shards(std::string unit_bytes, const sql::statement& effect,
                         std::string_view text) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  std::string said(text);
  if (effect.effect == sql::effect::rollback_to) said.append("\n;").append(spread_->mark_sql());
  for (const auto& sql : shadow_->behind(effect)) said.append("\n;").append(sql);
  spread_->tell(std::move(said), [this, unit_bytes = std::move(unit_bytes),
                                    effect](const pg_error* why) {
    if (state_ != state::spreading) return;
    const std::string tag = spread_->tags().substr(0, spread_->tags().find('\0'));
    if (why == nullptr) {
      script_.succeeded(effect, shadow_->current(), shadow_->behind(effect));
      shadow_->succeeded(effect, tag, worker_.pairs());
      settle_names(effect);
      if (effect.effect == sql::effect::rollback_to) virtual_status_ = 'T';
      local_settings_ = local_settings_ || changes_parsing(effect);
      if (effect.name == "datestyle") {
        if (const auto* style = spread_->parameters()->find("DateStyle")) {
          shadow_->restate("datestyle", ":" + *style, worker_.pairs());
        }
      }
      spread_->settings_are(shadow_->current(), shadow_->take_connection_unknown());
    } else {
      shadow_->failed();
    }
    write(spread_->take_asides());
    tell_parameters(spread_->parameters());
    answer_shards(unit_bytes, tag, why);
  });
}

void client::end_shards(std::string unit_bytes, const sql::statement& effect, bool commit) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  if (!commit) {
    spread_->rollback([this, unit_bytes = std::move(unit_bytes), effect](const pg_error*) {
      if (state_ != state::spreading) return;
      if (shards_ended(effect, "ROLLBACK")) answer_shards(unit_bytes, "ROLLBACK", nullptr);
    });
    return;
  }
  spread_->commit(shadow_->current(), endpoint_->commits,
                  [this, unit_bytes = std::move(unit_bytes), effect](const pg_error* why,
                                                                     const std::string& warning) {
                    if (state_ != state::spreading) return;
                    const auto tag = why == nullptr ? "COMMIT" : "ROLLBACK";
                    if (shards_ended(effect, tag)) answer_shards(unit_bytes, tag, why, warning);
                  });
}

// The router has found it in a deadlock that no server sees whole.
void client::end_deadlock(std::uint32_t began) {
  if (!spread_ || spread_->marked().began != began || state_ == state::closed) return;
  spread_->end_deadlock();
  cancel();
}

// False: the session cannot go on.
bool client::shards_ended(const sql::statement& effect, std::string_view tag) {
  auto over = std::move(spread_);
  write(over->take_asides());
  virtual_status_ = 'I';
  script_.clear();
  portal_shards_.reset();
  unrun_ = wrote_ = local_settings_ = batch_ = false;
  announces_ = std::exchange(defined_, false) && tag == "COMMIT";
  unsettled_.clear();
  unsettled_at_.clear();
  shadow_->succeeded(effect, tag, worker_.pairs());
  shadow_->ready('I');
  ++counts_.transactions;
  worker_.counters().transactions.add();
  if (over->keeps()) {
    server_ = over->take_kept();
    if (server_ == nullptr) {
      end(pg_error{"08006", "the server connection that the session was bound to is lost",
                   std::string(tag) == "COMMIT" ? "The transaction has been committed." : "",
                   {}});
      return false;
    }
    server_->pass_to(this);
  }
  tell_parameters(over->parameters());
  return true;
}

// Too many to tell the router of with each statement are any.
void client::note_unsettled(const std::vector<std::string>& names) {
  constexpr std::size_t most = 64;
  for (const auto& name : names) {
    if (std::find(unsettled_.begin(), unsettled_.end(), name) == unsettled_.end()) {
      unsettled_.push_back(name);
    }
  }
  if (unsettled_.size() > most) unsettled_ = {"*"};
}

// What was defined behind a savepoint is taken back to it.
void client::settle_names(const sql::statement& done) {
  using enum sql::effect;
  constexpr std::size_t most = 256;
  const bool lost = !unsettled_at_.empty() && unsettled_at_.front().first.empty();
  if (lost) return;
  if (done.effect == savepoint) {
    if (!unsettled_.empty()) unsettled_at_.emplace_back(done.name, unsettled_);
    if (unsettled_at_.size() > most) {   // from here on any name is one of them, to the end
      unsettled_ = {"*"};
      unsettled_at_ = {{std::string(), unsettled_}};
    }
    return;
  }
  if (done.effect != rollback_to && done.effect != release) return;
  const auto at = std::find_if(unsettled_at_.rbegin(), unsettled_at_.rend(),
                               [&](const auto& one) { return one.first == done.name; });
  if (at == unsettled_at_.rend()) {   // of before the first definition
    if (done.effect == rollback_to) {
      unsettled_.clear();
      unsettled_at_.clear();
    }
    return;
  }
  if (done.effect == rollback_to) unsettled_ = at->second;
  unsettled_at_.erase(done.effect == release ? at.base() - 1 : at.base(), unsettled_at_.end());
}

void client::answer_shards(const std::string& unit_bytes, std::string_view tag,
                           const pg_error* error, const std::string& warning,
                           const same_rows* rows) {
  if (std::exchange(announces_, false) && error == nullptr && rows == nullptr) {
    // Who is told that a definition has been committed may go by it, in every session: plans of
    // before are used by nobody then. A router that is away cannot be waited for.
    const auto told = "{\"command\":\"catalog_changed\",\"database\":\"" +
                      log::json_escape(endpoint_->database.name) + "\"}";
    return ask_router(bus::kind::command, told, std::chrono::seconds(5),
                      [=, this, kept = std::string(tag)](const result<bus::envelope>&) {
                        answer_shards(unit_bytes, kept, nullptr, warning);
                      });
  }
  set_state(state::ready);
  if (!warning.empty()) {
    std::string notice;
    wire::write_notice(notice, "WARNING", {"01000", warning, {}, {}});
    write(notice);
  }
  unit answered;
  read_unit(as_bytes(unit_bytes), answered);
  if (error != nullptr) {
    refuse_unit(answered, *error, rows != nullptr ? rows->error_for(*error) : std::string());
  } else {
    answer_unit(answered, tag, rows);
  }
  if (draining_ && status() == 'I' && !steps_) {
    return end(pg_error{"57P01", "terminating connection due to administrator command", {}, {}});
  }
  resume();
  watch();
}

}  // namespace pgsled::frontend
