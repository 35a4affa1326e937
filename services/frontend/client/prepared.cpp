// The extended protocol, message after message, to the attached server: which statement a name
// means, and that it is prepared on the connection that is lent.

#include <algorithm>

#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;
using session::owed;

statement_ref* client::find_prepared(std::string_view name) {
  if (!prepared_) return nullptr;
  const auto found = prepared_->find(std::string(name));
  return found == prepared_->end() ? nullptr : &found->second;
}

void client::prepare_on_server(const statement_ref& wanted, std::string_view name, output& out,
                               bool proxy, std::uint32_t mark) {
  wire::write_parse(out.own(), name, wanted->sql, as_bytes(wanted->types));
  // A client's own Parse that is skipped is skipped for it, too.
  const auto batch = proxy && server_->ledger.unsynced() ? server_->ledger.batch()
                                                         : present_statements::surely;
  session::entry sent{owed::parse, proxy, true};
  sent.mark = mark;
  sent.tag = server::tag_of(*wanted, name.empty());
  if (server_->ledger.add(std::move(sent))) {
    if (name.empty()) {
      server_->unnamed = wanted;
      server_->unnamed_batch = server_->ledger.batch();
    } else {
      server_->present.add(wanted->server_name(), wanted, batch);
    }
    worker_.counters().statements_prepared.add();
  }
}

// False, as what the caller says: the message in hand comes again when the server owes nothing.
bool client::wait_for_answers(output& out) {
  out.flush(server_);
  settle();
  return false;
}

// False: the message that needs the statement has to wait, and comes again.
bool client::make_room(const statement_ref& wanted, std::string_view name, output& out) {
  auto& present = server_->present;
  const std::size_t limit = worker_.settings().prepared_statements_per_connection;
  if (present.in_doubt(wanted->server_name(), server_->ledger) || text_in_doubt(wanted, name)) {
    return wait_for_answers(out);
  }
  // While the server skips to a Sync nothing is prepared, and nothing would be closed.
  if (present.use(wanted->server_name()) || present.size() < limit ||
      server_->ledger.skipping()) {
    return true;
  }
  // Were something before it to fail the server would skip a Close, and nobody could say any more
  // what is there: so nothing may be owed. Several are closed at once, to wait seldom.
  if (!server_->ledger.empty()) return wait_for_answers(out);
  for (const auto& old : present.take_oldest(present.size() - limit + 1 + limit / 16)) {
    wire::write_close(out.own(), 'S', old);
    server_->ledger.add({owed::close, true});
  }
  return true;
}

// Whether what the session has under that name can only be told when the server has answered.
bool client::in_doubt(std::string_view name) const {
  if (server_ == nullptr || server_->ledger.empty() || server_->ledger.copying_in()) return false;
  const auto& ledger = server_->ledger;
  if (name.empty()) return ledger.in_doubt(server_->unnamed_batch);
  if (closes_unconfirmed_ && is_unconfirmed(name)) return true;
  // Whether a Parse that it has seen was skipped the server itself says to who uses it.
  return unseen_since_ < ledger.batch() && noted([&](const note& one) {
           return one.unseen && one.name == name && ledger.in_doubt(one.batch);
         });
}

// As in_doubt(), for who takes the name away: that nobody says.
bool client::goes_in_doubt(std::string_view name) const {
  return in_doubt(name) || noted([&](const note& one) {
           return one.name == name && server_->ledger.in_doubt(one.batch);
         });
}

// The statement is on the server by a Parse of another name, which may have failed.
bool client::text_in_doubt(const statement_ref& wanted, std::string_view name) const {
  return noted([&](const note& one) {
    return one.statement == wanted && !one.name.empty() && !one.closed && one.name != name &&
           server_->ledger.in_doubt(one.batch);
  });
}

// For a message about the unnamed statement that is not in doubt: the session's is there, and nobody
// else's, which may be also when nothing is known of it: what took it away may have been skipped.
void client::ensure_unnamed(output& out) {
  if (unnamed_ != nullptr) {
    if (server_->unnamed != unnamed_) prepare_on_server(as_used(unnamed_), "", out, true);
    return;
  }
  wire::write_close(out.own(), 'S', "");
  server_->ledger.add({owed::close, true});
  unnamed_goes();
}

// With what is sent now, or not, should the server skip that.
void client::unnamed_goes() {
  server_->unnamed.reset();
  server_->unnamed_batch = server_->ledger.batch();
}

// After make_room().
void client::ensure_prepared(const statement_ref& wanted, output& out) {
  if (server_->present.contains(wanted->server_name())) return;
  prepare_on_server(wanted, wanted->server_name(), out, true);
}

std::unordered_map<std::string, statement_ref>& client::names() {
  if (!prepared_) prepared_ = std::make_unique<std::unordered_map<std::string, statement_ref>>();
  return *prepared_;
}

// False: the session has been ended.
bool client::has_room_for_name() {
  if (names().size() < max_prepared) return true;
  end(pg_error{"53200", "more than 100000 prepared statements in one session",
               "Close those that are no longer used.", {}});
  return false;
}

bool client::parse(byte_span body, output& out) {
  const auto sent = wire::read_parse(body);
  if (!sent) {
    violate("malformed Parse message");
    return false;
  }
  if (texts_in_doubt()) return wait_for_answers(out);
  const auto whole = wire::header_size + body.size();
  if (endpoint_->mode == pool_mode::session && !sent->name.empty()) {
    if (!has_room_for_name()) return false;
    ++server_->pool().stats.parses;
    server_->ledger.add({owed::parse});
    out.pass(whole);
    // Effects are still looked for when it is executed.
    (*prepared_)[std::string(sent->name)] = cached_statement(*sent);
    return true;
  }
  auto wanted = repeats_unnamed(*sent) ? unnamed_ : cached_statement(*sent);
  const bool begins = endpoint_->mode == pool_mode::statement &&
                      any_effect(wanted->effects, sql::effect::begin);
  if (begins && !server_->ledger.empty()) return wait_for_answers(out);
  if (begins && !server_->ledger.skipping()) {
    if (sent->name.empty()) unnamed_ = nullptr;
    refuse(no_transactions(), false);
    return true;
  }
  statement_ref repeated_as;
  if (!sent->name.empty()) {
    const auto* known = find_prepared(sent->name);
    if (known != nullptr) repeated_as = as_used(*known);
    if ((known != nullptr && is_unconfirmed(sent->name) && !server_->ledger.empty()) ||
        in_doubt(sent->name)) {
      // Whether the name is taken is not known before the server has answered.
      return wait_for_answers(out);
    }
    if (!make_room(repeated_as ? repeated_as : wanted, sent->name, out)) return false;
  }
  ++server_->pool().stats.parses;
  if (sent->name.empty()) {
    session::entry entry{owed::parse, false, true};
    const bool noted = unnamed_ != wanted || !server_->ledger.empty() || is_unconfirmed("");
    if (noted && !server_->ledger.skipping()) {
      // What the unnamed statement was, should this Parse be skipped. Most are what it was, alone.
      entry.mark = note_change("", std::move(unnamed_), false);
      unnamed_ = wanted;
    }
    entry.tag = server::tag_of(*wanted, true);
    if (server_->ledger.add(std::move(entry))) {
      server_->unnamed_batch = server_->ledger.batch();
      if (server_->unnamed != wanted) server_->unnamed = std::move(wanted);
    }
    out.pass(whole);
    return true;
  }
  if (repeated_as) {
    // Prepared already: let the server say so, so that its transaction fails as it must. The
    // message names the statement as the server knows it.
    ensure_prepared(repeated_as, out);
    wire::write_parse(out.own(), repeated_as->server_name(), sent->sql, sent->parameter_types);
    session::entry repeated{owed::parse};
    repeated.mark = note_change(sent->name, nullptr, false);
    unconfirmed_->back().repeated = true;
    server_->ledger.add(std::move(repeated));
    out.skip(whole);
    return true;
  }
  // In a failed transaction the server refuses it before it looks at the name; unless what it still
  // owes has ended that.
  const bool there = server_->present.contains(wanted->server_name());
  const bool refused = server_->ledger.failed() && !leaves_failure(wanted->effects) &&
                       !is_blank(wanted->sql);
  if (there && refused && !server_->ledger.empty()) return wait_for_answers(out);
  if (!has_room_for_name()) return false;
  std::uint32_t mark = 0;
  if (!server_->ledger.skipping()) {
    prepared_->emplace(std::string(sent->name), wanted);
    mark = note_change(sent->name, wanted, false);
  }
  if (there && !refused) {
    session::entry entry{owed::virtual_parse};
    entry.mark = mark;
    if (mark != 0) {
      unconfirmed_->back().unseen = true;
      unseen_since_ = std::min(unseen_since_, server_->ledger.batch());
    }
    server_->ledger.add(std::move(entry));
  } else if (there) {
    wire::write_parse(out.own(), wanted->server_name(), wanted->sql, as_bytes(wanted->types));
    session::entry entry{owed::parse};
    entry.mark = mark;
    server_->ledger.add(std::move(entry));
  } else {
    prepare_on_server(wanted, wanted->server_name(), out, false, mark);
  }
  out.skip(whole);
  return true;
}

bool client::bind(byte_span body, byte_span whole, output& out) {
  // Of a Bind that streams only the beginning is here: its names must be in it.
  wire::reader names(body);
  const auto portal = names.text();
  const auto name = names.text();
  if (!names.ok()) {
    violate("malformed Bind message");
    return false;
  }
  if (in_doubt(name) || texts_in_doubt()) return wait_for_answers(out);
  statement_ref prepared;
  if (const auto* known = name.empty() ? nullptr : find_prepared(name)) prepared = as_used(*known);
  if (prepared != nullptr && endpoint_->mode != pool_mode::session &&
      !make_room(prepared, name, out)) {
    return false;
  }
  if (name.empty()) ensure_unnamed(out);
  ++server_->pool().stats.binds;
  touched();
  statement_ref target;
  if (name.empty()) {
    if (unnamed_ && unnamed_->effects) target = unnamed_;
  } else if (prepared != nullptr) {
    target = std::move(prepared);
    if (endpoint_->mode != pool_mode::session) ensure_prepared(target, out);
  }
  server_->portal_is(portal, target ? effects_of(*target, body) : nullptr);
  server_->ledger.add({owed::bind});
  if (name.empty() || !target || endpoint_->mode == pool_mode::session) {
    out.pass(whole.size());
    return true;
  }
  const auto& server_name = target->server_name();
  const auto frame_length = load_be<std::uint32_t>(whole.data() + 1);
  auto& own = out.own();
  const auto length =
      static_cast<std::uint32_t>(frame_length - name.size() + server_name.size());
  char header[wire::header_size] = {fe::bind};
  store_be(header + 1, length);
  own.append(header, sizeof header);
  own.append(portal).push_back('\0');
  own.append(server_name).push_back('\0');
  out.skip(wire::header_size + portal.size() + 1 + name.size() + 1);
  out.pass(body.size() - portal.size() - name.size() - 2);
  return true;
}

// The server would have to be given the statement, and would refuse that because its transaction
// has failed: what there is to say of it is known.
bool client::lacks_in_failure(std::string_view name) {
  if (!server_->ledger.failed() || endpoint_->mode == pool_mode::session) return false;
  const auto* known = name.empty() ? nullptr : find_prepared(name);
  const auto& meant = known != nullptr ? *known : unnamed_;
  if ((known == nullptr && !name.empty()) || !meant || !has_no_rows(meant->effects)) return false;
  return name.empty() ? server_->unnamed != meant
                      : !server_->present.contains(meant->server_name());
}

bool client::describe(byte_span body, output& out) {
  const auto target = wire::read_described(body);
  if (!target || (target->what != 'S' && target->what != 'P')) {
    violate("malformed Describe message");
    return false;
  }
  const auto whole = wire::header_size + body.size();
  if (target->what == 'P') {
    touched();
    server_->ledger.add({owed::describe_portal});
    out.pass(whole);
    return true;
  }
  if (in_doubt(target->name) || texts_in_doubt()) return wait_for_answers(out);
  if (lacks_in_failure(target->name)) {
    if (!server_->ledger.empty()) return wait_for_answers(out);
    std::string bytes;
    wire::writer(bytes, wire::backend::parameter_description).i16(0);
    wire::write_empty(bytes, wire::backend::no_data);
    write(bytes);
    out.skip(whole);
    return true;
  }
  if (target->name.empty()) {
    ensure_unnamed(out);
  } else if (auto* prepared = find_prepared(target->name);
             prepared != nullptr && endpoint_->mode != pool_mode::session) {
    const auto used = as_used(*prepared);
    if (!make_room(used, target->name, out)) return false;
    ensure_prepared(used, out);
    server_->ledger.add({owed::describe_statement});
    wire::write_describe(out.own(), 'S', used->server_name());
    out.skip(whole);
    return true;
  }
  server_->ledger.add({owed::describe_statement});
  out.pass(whole);
  return true;
}

// The session has no statement of that name any more, unless that is taken back: the note's mark.
std::uint32_t client::take_name(const std::string& name) {
  const auto mark = note_change(name, std::move(*find_prepared(name)), true);
  prepared_->erase(name);
  return mark;
}

bool client::close_object(byte_span body, output& out) {
  const auto target = wire::read_described(body);
  if (!target || (target->what != 'S' && target->what != 'P')) {
    violate("malformed Close message");
    return false;
  }
  const auto whole = wire::header_size + body.size();
  if (target->what == 'S' && !target->name.empty() && goes_in_doubt(target->name)) {
    return wait_for_answers(out);
  }
  ++server_->pool().stats.closes;
  session::entry entry{owed::close};
  if (target->what == 'S' && !server_->ledger.skipping()) {
    const std::string name(target->name);
    if (name.empty()) {
      entry.mark = note_change("", std::move(unnamed_), true);
      unnamed_ = nullptr;
      unnamed_goes();
    } else if (find_prepared(name) != nullptr) {
      entry.mark = take_name(name);
    }
    if (!name.empty() && endpoint_->mode != pool_mode::session) {
      // Stays prepared on the server for the next client that wants it.
      entry.kind = owed::virtual_close;
      server_->ledger.add(std::move(entry));
      out.skip(whole);
      return true;
    }
  }
  if (target->what == 'P') server_->portal_is(target->name, nullptr);
  server_->ledger.add(std::move(entry));
  out.pass(whole);
  return true;
}

bool client::execute(byte_span body, output& out) {
  const auto sent = wire::read_execute(body);
  if (!sent) {
    violate("malformed Execute message");
    return false;
  }
  session::entry entry{owed::execute};
  entry.effects = server_->portal(sent->portal);
  if (forgets_statements(entry.effects) && !server_->ledger.empty()) return wait_for_answers(out);
  ++counts_.queries;
  ++server_->pool().stats.queries;
  worker_.counters().queries.add();
  touched();
  run_effects(entry.effects);
  if (const auto* name = name_to_deallocate(entry.effects)) {
    entry.mark = take_name(*name);
    prepare_stand_in(*name, out);
  }
  const auto effects = entry.effects;
  server_->ledger.add(std::move(entry));
  out.pass(wire::header_size + body.size());
  if (effects && effects->size() == 1) start_again(effects->front(), out);
  return true;
}

// As with_start_again(), behind an Execute.
void client::start_again(const sql::statement& done, output& out) {
  constexpr const char* name = "__pgsled_start";
  for (const auto& sql : shadow_->behind(done)) {
    wire::write_parse(out.own(), name, sql, {});
    wire::write_bind(out.own(), name, name);
    wire::write_execute(out.own(), name);
    wire::write_close(out.own(), 'P', name);
    wire::write_close(out.own(), 'S', name);
    for (const auto kind : {owed::parse, owed::bind, owed::execute, owed::close, owed::close}) {
      server_->ledger.add({kind, true});
    }
  }
}

}  // namespace pgsled::frontend
