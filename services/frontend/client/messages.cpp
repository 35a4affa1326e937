// One message after the other to the attached server: the ledger told what is owed, effects on the
// session noted.

#include <fmt/ranges.h>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;
using session::owed;

namespace {
// For the session.
bool sets_datestyle(const sql::statement& ran) {
  return (ran.effect == sql::effect::set && ran.name == "datestyle") ||
         std::any_of(ran.also.begin(), ran.also.end(), sets_datestyle);
}

// What a server in COPY FROM STDIN takes: anything else costs PostgreSQL's client its connection.
bool belongs_in_copy(char type) {
  return fe::is_copy(type) || type == fe::sync || type == fe::flush;
}

// FunctionCall: lo_creat() and the like, which libpq and JDBC call so, leave nothing on a session.
bool of_large_objects(byte_span body) {
  if (body.size() < 4) return false;
  const auto oid = load_be<std::uint32_t>(body.data());
  return (oid >= 952 && oid <= 958) || oid == 715 || oid == 964 || oid == 1004 ||
         (oid >= 3170 && oid <= 3172);
}
}  // namespace

bool client::standard_strings() const {
  if (!reported_) return true;
  return reported_->standard_strings == nullptr || *reported_->standard_strings != "off";
}

// After SET LOCAL what a text means is known to the transaction only: such a statement is shared
// with nobody. `own` is where the text may lie.
std::string_view client::parse_context(std::string& own) const {
  const std::string& context = shadow_->current()->parse_context;
  if (!local_settings_) return context;
  own = std::to_string(serial_) + '.' + std::to_string(counts_.transactions);
  own.push_back('\0');
  own.append(context);
  return own;
}

// Something that the server has not answered yet decides under which settings it parses what comes
// next, and so what others may share with it.
bool client::texts_in_doubt() const {
  const auto& ledger = server_->ledger;
  if (ledger.empty() || ledger.skipping() || endpoint_->mode == pool_mode::session) return false;
  return ledger.pending([undoes = shadow_->undecided()](const sql::statement& one) {
    using enum sql::effect;
    return changes_texts(one) || (undoes && (one.effect == commit || one.effect == rollback ||
                                             one.effect == rollback_to));
  });
}

bool client::changes_parsing(const sql::statement& ran) {
  return (ran.effect == sql::effect::set_local &&
          (ran.name.empty() || session::decides_parsing(ran.name))) ||
         std::any_of(ran.also.begin(), ran.also.end(), changes_parsing);
}

// Drivers say one Parse again and again: then it need not be looked for.
bool client::repeats_unnamed(const wire::parse_message& sent) const {
  return sent.name.empty() && unnamed_ && !local_settings_ && unnamed_->sql == sent.sql &&
         unnamed_->types == as_text(sent.parameter_types) &&
         unnamed_->context == shadow_->current()->parse_context;
}

statement_ref client::cached_statement(const wire::parse_message& sent) {
  std::string own;
  return worker_.statements().find_or_add(sent.sql, sent.parameter_types, parse_context(own),
                                          standard_strings());
}

// What is prepared where the statement is missing. Read under other settings than those of its
// Parse the text may mean something else, which nobody who has those may find under its name.
statement_ref client::as_used(const statement_ref& parsed) {
  if (endpoint_->mode == pool_mode::session) return parsed;
  if (server_->unnamed == parsed || server_->present.contains(parsed->server_name())) return parsed;
  std::string own;
  const auto context = parse_context(own);
  if (parsed->context == context) return parsed;
  return worker_.statements().find_or_add(parsed->sql, as_bytes(parsed->types), context,
                                          standard_strings());
}

bool client::message(char type, byte_span body, byte_span whole, output& out) {
  last_request_ = worker_.loop().now();
  if (skip_to_sync_) {
    // An error of ours came before; PostgreSQL skips everything up to Sync, too.
    if (type != fe::sync) return true;
    skip_to_sync_ = false;
    std::string ready;
    wire::write_ready(ready, status());
    write(ready);
    return true;
  }
  const bool bodiless = type == fe::sync || type == fe::flush || type == fe::copy_done;
  if (bodiless && !body.empty()) {
    violate("message has a body and must not");
    return false;
  }
  if (server_ == nullptr && unattached(type, body)) return true;
  if (server_ != nullptr && server_->ledger.copying_in() && !belongs_in_copy(type)) {
    violate("unexpected message type " + std::to_string(static_cast<int>(type)) +
            " in a COPY from the client");
    return false;
  }
  if (type != fe::copy_data && pipeline_full()) {
    worker_.counters().pipelines_held.add();
    return wait_for_answers(out);
  }
  switch (type) {
    case fe::query:
    case fe::parse:
    case fe::bind:
    case fe::describe:
    case fe::execute:
    case fe::close:
    case fe::sync:
    case fe::flush:
    case fe::function_call:
      break;
    case fe::copy_data:
      out.pass(whole.size());
      return true;
    case fe::copy_done:
    case fe::copy_fail:
      server_->ledger.copy_ended();
      out.pass(whole.size());
      return true;
    default:
      violate("unexpected message type " + std::to_string(static_cast<int>(type)));
      return false;
  }
  if (!ensure_server(unit_shard_)) return false;
  switch (type) {
    case fe::query:
      return query(body, out);
    case fe::parse:
      return parse(body, out);
    case fe::bind:
      return bind(body, whole, out);
    case fe::describe:
      return describe(body, out);
    case fe::close:
      return close_object(body, out);
    case fe::execute:
      return execute(body, out);
    case fe::sync:
      server_->ledger.add({owed::sync});
      break;
    case fe::flush:
      out.pass(whole.size());
      out.flush(server_);
      server_->flush_virtual();
      flush_to_client();
      return true;
    case fe::function_call:
      touched();
      // It may have set or locked something for as long as the connection is there.
      if (!of_large_objects(body)) server_->dirty = true;
      server_->ledger.add({owed::function_call});
      break;
    default:
      break;
  }
  out.pass(whole.size());
  return true;
}

// Messages that need no server because no transaction is open.
bool client::unattached(char type, byte_span body) {
  switch (type) {
    case fe::sync: {
      std::string ready;
      wire::write_ready(ready, status());
      write(ready);
      return true;
    }
    case fe::flush:
    case fe::copy_data:
    case fe::copy_done:
    case fe::copy_fail:
      // Left over from a COPY that failed: PostgreSQL ignores them, too.
      return true;
    case fe::parse: {
      // Clients that prepare everything they have at once (pgbench does, and waits for each answer)
      // must not wait for one another's leases: what a server has accepted for the same user,
      // database and settings is answered here. Were it to fail now, Bind would say so.
      const auto sent = wire::read_parse(body);
      if (!sent || sent->name.empty() || endpoint_->mode == pool_mode::session ||
          virtual_status_ == 'E') {
        return false;
      }
      const auto known =
          cached_statement(*sent);
      if (any_effect(known->effects, sql::effect::deallocate) ||
          endpoint_->mode == pool_mode::statement || known->proven_endpoint.lock() != endpoint_ ||
          known->proven_settings != shadow_->current() || find_prepared(sent->name) != nullptr) {
        return false;
      }
      if (!has_room_for_name()) return true;
      prepared_->emplace(std::string(sent->name), known);
      std::string reply;
      wire::write_empty(reply, wire::backend::parse_complete);
      write(reply);
      return true;
    }
    case fe::close: {
      const auto target = wire::read_described(body);
      if (!target || target->what != 'S' || endpoint_->mode == pool_mode::session) return false;
      if (prepared_) prepared_->erase(std::string(target->name));
      if (target->name.empty()) unnamed_.reset();
      std::string reply;
      wire::write_empty(reply, wire::backend::close_complete);
      write(reply);
      return true;
    }
    default:
      return false;
  }
}

void client::run_effects(const session::effects& effects) {
  if (!effects) return;
  for (const auto& each : *effects) {
    switch (each.effect) {
      case sql::effect::pin:
        ++pins_;
        own_settings_ = own_settings_ || each.unknown_path || each.calls ||
                        each.name == "characteristics";
        shards_looked_at_ = 0;
        if (endpoint_->mode == pool_mode::session) break;
        if (!std::exchange(pinned_, true)) worker_.counters().pinned.add();
        server_->dirty = true;
        break;
      case sql::effect::set_local:
      case sql::effect::set:
        local_settings_ = local_settings_ || changes_parsing(each);
        if (each.name == "client_encoding" && session::hides_ascii(each.value)) {
          server_->dirty = true;
        }
        datestyle_changed_ = datestyle_changed_ || sets_datestyle(each);
        break;
      case sql::effect::deallocate:
        if (!each.name.empty()) break;
        [[fallthrough]];
      case sql::effect::discard_all:
        if (server_->ledger.skipping()) break;
        // Refused by the server, which owes nothing before it.
        if (server_->ledger.failed() && effects->size() == 1) break;
        if (each.effect == sql::effect::discard_all && discard_is_refused()) break;
        // Gone for what comes behind it in the pipeline. Should it fail, nobody knows what the
        // connection has: it is cleaned before anybody else gets it.
        pins_when_discarded_ = pins_;
        prepared_.reset();
        server_->present.clear();
        server_->dirty = true;
        break;
      default:
        break;
    }
  }
}

bool client::query(byte_span body, output& out) {
  const auto text = wire::read_query(body);
  if (!text) {
    violate("malformed Query message");
    return false;
  }
  if (texts_in_doubt()) return wait_for_answers(out);
  std::shared_ptr<std::vector<sql::statement>> found;
  bool begins = false;
  if (sql::may_affect_session(*text)) {
    found = std::make_shared<std::vector<sql::statement>>();
    sql::find_statements(*text, standard_strings(), *found);
    begins = endpoint_->mode == pool_mode::statement && any_effect(found, sql::effect::begin);
    if ((begins || forgets_statements(found)) && !server_->ledger.empty()) {
      return wait_for_answers(out);
    }
  }
  ++counts_.queries;
  ++server_->pool().stats.queries;
  worker_.counters().queries.add();
  touched();
  session::entry sent{owed::query};
  if (!server_->ledger.skipping()) {
    // It takes the unnamed statement away, should it not be skipped.
    if (unnamed_ != nullptr || is_unconfirmed("")) {
      sent.mark = note_change("", std::exchange(unnamed_, nullptr), false);
    }
    unnamed_goes();
  }
  if (found) {
    const bool matters = std::any_of(found->begin(), found->end(),
                                     [](const auto& s) { return s.effect != sql::effect::none; });
    if (begins && !server_->ledger.skipping()) {
      refuse(no_transactions(), true);
      return true;
    }
    if (matters) {
      if (const auto* name = name_to_deallocate(found)) {
        prepared_->erase(*name);
        prepare_stand_in(*name, out);
        // Nothing is owed: it can only end what has been answered. Should the Parse be cancelled,
        // the statement is not skipped.
        wire::write_sync(out.own());
        server_->ledger.add({owed::sync, true});
      }
      run_effects(found);
      const auto& first = found->front();
      const bool discards = found->size() == 1 && first.effect == sql::effect::discard_all;
      if (discards && !discard_is_refused()) {
        sent.effects = found;
        return discard_all(first, body, std::move(sent), out);
      }
      const auto longer = discards ? std::string() : with_start_again(*text, *found);
      sent.effects = std::move(found);
      if (!longer.empty()) {
        wire::write_query(out.own(), longer);
        server_->ledger.add(std::move(sent));
        out.skip(wire::header_size + body.size());
        return true;
      }
    }
  }
  server_->ledger.add(std::move(sent));
  out.pass(wire::header_size + body.size());
  return true;
}

// In a transaction block, if that is what the server said last: it owes nothing.
bool client::discard_is_refused() const {
  return server_->ledger.status() == 'T' && !server_->ledger.unsynced();
}

// It does not run among others.
bool client::discard_all(const sql::statement& done, byte_span body, session::entry sent,
                         output& out) {
  server_->ledger.add(std::move(sent));
  out.pass(wire::header_size + body.size());
  const auto again = shadow_->behind(done);
  if (again.empty()) return true;
  wire::write_query(out.own(), fmt::format("{}", fmt::join(again, ";")));
  server_->ledger.add({owed::query, true});
  return true;
}

// The text with what has to come behind its RESETs; empty: nothing.
std::string client::with_start_again(std::string_view text, std::vector<sql::statement>& all) {
  std::string longer;
  std::size_t taken = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto end = std::size_t{all[i].offset} + all[i].length;
    for (const auto& sql : shadow_->behind(all[i])) {
      longer.append(text.substr(taken, end - taken)).append("\n;").append(sql);
      taken = end;
      sql::statement ours;
      ours.injected = true;
      all.insert(all.begin() + static_cast<std::ptrdiff_t>(++i), std::move(ours));
    }
  }
  if (!longer.empty()) longer.append(text.substr(taken));
  return longer;
}

// Of a DEALLOCATE that the server will run: the name that was prepared by the extended protocol;
// else null. In session mode the server has that name itself.
const std::string* client::name_to_deallocate(const session::effects& effects) {
  const auto* only = only_effect(effects);
  const bool here = only != nullptr && only->effect == sql::effect::deallocate &&
                    !only->name.empty() && endpoint_->mode != pool_mode::session &&
                    !server_->ledger.failed() && !server_->ledger.skipping() &&
                    find_prepared(only->name) != nullptr;
  return here ? &only->name : nullptr;
}

// On the server the statement has another name and stays for the next client: it gets an empty one
// of this name to deallocate, so that the answer is its own. Close: one may be left there whose
// Execute has failed.
void client::prepare_stand_in(const std::string& name, output& out) {
  wire::write_close(out.own(), 'S', name);
  server_->ledger.add({owed::close, true});
  wire::write_parse(out.own(), name, "", {});
  server_->ledger.add({owed::parse, true});
}

// One statement is refused, the session goes on as after an error of the server.
void client::refuse(const pg_error& why, bool simple, std::string_view fields) {
  if (server_ != nullptr && (!server_->ledger.empty() || server_->ledger.skipping())) {
    // It would be taken for the reply to another message.
    return end({"XX000", "what is refused came before its turn: " + why.message, {}, {}});
  }
  ++counts_.errors;
  worker_.counters().errors.add(why.sqlstate);
  std::string bytes;
  if (fields.empty()) {
    wire::write_error(bytes, "ERROR", why);
  } else {
    wire::writer(bytes, wire::backend::error_response).raw(fields);
  }
  // One of the servers must be in a failed transaction, too, to say what is said in one.
  if (spread_ && server_ == nullptr) lend(spread_->failed_leg());
  if (server_ != nullptr && server_->ledger.empty() && !server_->ledger.skipping() &&
      (server_->ledger.status() == 'T' || server_->ledger.unsynced())) {
    // The server's transaction must fail as well: make it.
    write(bytes);
    owes_ready_ = simple;
    skip_to_sync_ = !simple;
    set_state(state::refusing);
    std::string failing;
    wire::write_query(failing, failing_statement);
    server_->ledger.add({owed::query, true});
    server_->unnamed.reset();
    server_->send(failing);
    if (shadow_) shadow_->failed();
    return;
  }
  if (virtual_status_ == 'T' && server_ == nullptr) virtual_status_ = 'E';
  if (simple) {
    wire::write_ready(bytes, status());
  } else {
    skip_to_sync_ = true;
  }
  write(bytes);
}

}  // namespace pgsled::frontend
