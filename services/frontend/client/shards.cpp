// A transaction over several shards as its client sees it: which leg a unit of messages goes to,
// what all legs are told, and the end. The legs are shard_transaction's; one of them at a time is
// lent to the client and is its server_.

#include <algorithm>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

// What cannot be done for several shards at once; empty: nothing of the kind.
std::string_view beyond_shards(const sql::statement& what, std::string_view text) {
  using enum sql::effect;
  const auto said = text.substr(std::min<std::size_t>(what.offset, text.size()));
  switch (what.effect) {
    case commit:
    case rollback:
      if (starts_with_word(said, "prepare")) return "PREPARE TRANSACTION";
      return chains(said) ? std::string_view("AND CHAIN") : std::string_view{};
    case set:
    case set_local:
      // An answer with a row is made by one server only.
      return starts_with_word(said, "set") ? std::string_view{} : "set_config()";
    default:
      return {};
  }
}

}  // namespace

std::unordered_map<std::string, std::uint32_t>& client::portal_shards() {
  if (!portal_shards_) {
    portal_shards_ = std::make_unique<std::unordered_map<std::string, std::uint32_t>>();
  }
  return *portal_shards_;
}

// Portals and cursors stay where they were made: what comes for them later goes there.
void client::note_portals(const unit& now, const cursor_use& cursor, std::uint32_t shard) {
  auto& known = portal_shards();
  if (now.simple) known.erase(std::string());   // the unnamed one
  for (const auto& part : now.parts) {
    if (part.type != wire::frontend::bind) continue;
    if (const auto sent = wire::read_bind(part.body)) {
      known.insert_or_assign(std::string(sent->portal), shard);
    }
  }
  if (cursor.what == cursor_use::kind::declares) known.insert_or_assign(cursor.name, shard);
  if (cursor.what == cursor_use::kind::closes) known.erase(cursor.name);
}

// Cursors of one name may not be on two shards, and CLOSE ALL comes to one of them only.
std::optional<pg_error> client::beyond_cursors(const cursor_use& cursor, const aim& target) const {
  using enum cursor_use::kind;
  const auto found = portal_shards_->find(cursor.name);
  if (cursor.what == declares && target.where == aim::kind::shard &&
      found != portal_shards_->end() && found->second != target.shard) {
    return pg_error{"0A000",
                    "cursor \"" + cursor.name + "\" has been declared on shard " +
                        std::to_string(found->second) + ", and this one would be on shard " +
                        std::to_string(target.shard),
                    "Give it another name, or close the first.", {}};
  }
  const bool named = std::any_of(portal_shards_->begin(), portal_shards_->end(),
                                 [](const auto& one) { return !one.first.empty(); });
  if (named && cursor.what == closes && cursor.name == "all") {
    return pg_error{"0A000", "CLOSE ALL is not possible in a transaction over several shards",
                    "Close each cursor by its name.", {}};
  }
  return std::nullopt;
}

void client::follow_portals(const unit& now, const cursor_use& cursor, aim& target) const {
  const auto follow = [&](const std::string& name) {
    const auto found = portal_shards_->find(name);
    if (found != portal_shards_->end()) target = {aim::kind::shard, found->second};
  };
  if (cursor.what != cursor_use::kind::none) follow(cursor.name);
  std::vector<std::string_view> bound;   // anew, in this unit
  const auto follow_portal = [&](std::string_view name) {
    if (std::find(bound.begin(), bound.end(), name) == bound.end()) follow(std::string(name));
  };
  for (const auto& part : now.parts) {
    if (part.type == wire::frontend::bind) {
      if (const auto sent = wire::read_bind(part.body)) bound.push_back(sent->portal);
    } else if (part.type == wire::frontend::execute) {
      if (const auto sent = wire::read_execute(part.body)) follow_portal(sent->portal);
    } else if (part.type == wire::frontend::describe || part.type == wire::frontend::close) {
      const auto sent = wire::read_described(part.body);
      if (sent && sent->what == 'P') follow_portal(sent->name);
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
  if (status() == 'E') return refused(aborted_transaction());
  if (endpoint_->mode == pool_mode::session) {
    return refused({"0A000", "in session pooling mode a transaction stays on one shard",
                    "Use pooler_mode = \"transaction\", or keys of one shard.", {}});
  }
  if (server_->ledger.unsynced()) {
    if (!in_block()) return refused(two_shards(server_->pool().description().shard, shard));
    return sync_first();
  }
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
  spread_over_server(implicit);
  return true;
}

void client::spread_over_server(bool implicit) {
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
  if (server_ == nullptr) return;
  const auto first = server_->pool().description().shard;
  spread_->adopt(*std::exchange(server_, nullptr), wrote_);
  portal_shards().try_emplace({}, first);   // the unnamed one, if there is one
  if (pinned_ || endpoint_->mode == pool_mode::session) bind_session(first);
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
    if (failed && only->effect != rollback_to) return refused(aborted_transaction());
    if (only->effect != begin && only->effect != discard_all) {
      tell_shards(std::string(as_text(bytes.first(now.bytes))), *only, text);
      return routed::done;
    }
    // BEGIN gets its warning, and DISCARD ALL its error, from one server.
  }
  if (target.where == aim::kind::all && (now.simple || now.executes > 0)) {
    if (!settled()) return routed::suspended;
    if (status() == 'E') return refused(aborted_transaction());
    return route_everywhere(now, bytes, *everywhere, text);
  }
  // In a failed transaction nothing but the leg that has failed is spoken to.
  const bool elsewhere = target.where == aim::kind::shard && target.shard != current;
  if (status() == 'E' && (elsewhere || server_ == nullptr) && (now.simple || now.executes > 0)) {
    if (!settled()) return routed::suspended;
    return refused(aborted_transaction());
  }
  // What names no shard, as EXECUTE, is about the server that the session is bound to.
  const bool at_home = target.where == aim::kind::any && spread_->keeps() && status() != 'E' &&
                       (now.simple || (now.executes > 0 && runs_what_it_binds(now)));
  const auto wanted = elsewhere && status() != 'E' ? target.shard
                      : at_home                    ? spread_->kept()
                                                   : current;
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

}  // namespace pgsled::frontend
