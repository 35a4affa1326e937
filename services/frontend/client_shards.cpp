// A transaction over several shards as its client sees it: which leg a unit of messages goes to,
// what all legs are told, and the end. The legs are shard_transaction's; one of them at a time is
// lent to the client and is its server_.

#include <algorithm>

#include "common/wire/messages.hpp"
#include "services/frontend/client.hpp"
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

}  // namespace

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
  if (!script_.complete()) {
    return refused({"0A000",
                    "the transaction cannot go to a second shard: how it has begun cannot be said "
                    "again there",
                    "Begin with BEGIN as the first statement of its message, without AND CHAIN, "
                    "RESET or set_config() of a computed value before the second shard.",
                    {}});
  }
  if (server_->ledger.unsynced()) return sync_first();
  const auto first = server_->pool().description().shard;
  spread_ = std::make_unique<shard_transaction>(worker_, endpoint_, script_.settings(), true,
                                                [this](const pg_error& why) {
                                                  server_ = nullptr;
                                                  end(why);
                                                });
  virtual_status_ = status();
  spread_->adopt(*std::exchange(server_, nullptr), wrote_);
  if (pinned_) bind_session(first);
  return join(shard);
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
                                    std::string_view text) {
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
  if (target.where == aim::kind::all) {
    if (!settled()) return routed::suspended;
    return refused({"0A000",
                    "a statement for all shards cannot run in a transaction that has begun on some",
                    "Run it in a transaction of its own.",
                    {}});
  }
  const auto wanted = target.where == aim::kind::shard ? target.shard : current;
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
    if (status() == 'E' && (now.simple || now.executes > 0)) return refused(aborted());
    park();
    if (!spread_->has(wanted)) return join(wanted);
    lend(wanted);
  }
  if (pins) bind_session(wanted);
  unit_shard_ = wanted;
  return routed::go;
}

void client::tell_shards(std::string unit_bytes, const sql::statement& effect,
                         std::string_view text) {
  park();
  set_state(state::spreading);
  ++counts_.queries;
  worker_.counters().queries.add();
  spread_->tell(std::string(text), [this, unit_bytes = std::move(unit_bytes),
                                    effect](const pg_error* why) {
    if (state_ != state::spreading) return;
    const std::string tag = spread_->tags();
    if (why == nullptr) {
      script_.succeeded(effect, shadow_->current());
      shadow_->succeeded(effect, tag, worker_.pairs());
      if (effect.effect == sql::effect::rollback_to) virtual_status_ = 'T';
      if (effect.effect == sql::effect::set_local) local_settings_ = true;
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
  spread_->commit(shadow_->current(),
                  [this, unit_bytes = std::move(unit_bytes), effect](const pg_error* why,
                                                                     const std::string& warning) {
                    if (state_ != state::spreading) return;
                    const auto tag = why == nullptr ? "COMMIT" : "ROLLBACK";
                    if (shards_ended(effect, tag)) answer_shards(unit_bytes, tag, why, warning);
                  });
}

// False: the session cannot go on.
bool client::shards_ended(const sql::statement& effect, std::string_view tag) {
  auto over = std::move(spread_);
  write(over->take_asides());
  virtual_status_ = 'I';
  script_.clear();
  unrun_ = wrote_ = local_settings_ = false;
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

void client::answer_shards(const std::string& unit_bytes, std::string_view tag,
                           const pg_error* error, const std::string& warning) {
  set_state(state::ready);
  if (!warning.empty()) {
    std::string notice;
    wire::write_notice(notice, "WARNING", {"01000", warning, {}, {}});
    write(notice);
  }
  unit answered;
  read_unit(as_bytes(unit_bytes), answered);
  if (error != nullptr) {
    refuse_unit(answered, *error);
  } else {
    answer_unit(answered, tag);
  }
  if (draining_ && status() == 'I') {
    return end(pg_error{"57P01", "terminating connection due to administrator command", {}, {}});
  }
  resume();
  watch();
}

}  // namespace pgsled::frontend
