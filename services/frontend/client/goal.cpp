// What a unit of messages is, and what its statements ask for together: which shard, or which
// refusal.

#include <algorithm>

#include "services/frontend/client/client.hpp"
#include "services/frontend/copy/shard_copy.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;
using plan::destination;

namespace {

const pg_error begun_on_one{
    "0A000", "a statement for all shards cannot run in a transaction that has begun on one", {},
    {}};
const pg_error shares_a_batch{
    "0A000", "a statement for all shards cannot share a batch with one for a single shard",
    "Send Sync between them.", {}};

// The body of a Parse begins with the name and its end.
bool parses(byte_span body, std::string_view name) {
  const auto text = as_text(body);
  return text.starts_with(name) && text.size() > name.size() && text[name.size()] == '\0';
}

}  // namespace

bool client::read_unit(byte_span bytes, unit& into) {
  const auto look_up = [&](std::string_view name) -> statement_ref {
    for (auto it = into.parts.rbegin(); it != into.parts.rend(); ++it) {
      if (it->type == fe::parse && parses(it->body, name)) return it->target;
    }
    into.in_doubt = into.in_doubt || in_doubt(name);
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
          part.target = repeats_unnamed(*sent) ? unnamed_ : cached_statement(*sent);
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
    // What a driver sends for one statement.
    if (into.parts.empty()) into.parts.reserve(6);
    into.parts.push_back(part);
    into.bytes = at;
    if (frame.type == fe::sync || frame.type == fe::flush) {
      into.ends_with_sync = frame.type == fe::sync;
      return true;
    }
  }
}

// False: suspended until the router has answered.
bool client::read_goal(unit& now, unit_goal& to) {
  encoding_uncertain_ = false;
  bool other_meaning = false;   // what comes next may mean other tables than it says
  for (std::size_t at = 0; at < now.parts.size(); ++at) {
    const auto& part = now.parts[at];
    plan_ref planned;
    if (part.type == fe::query) {
      const auto sql = wire::read_query(part.body);
      if (!sql) continue;
      to.text = *sql;
      if (!plan_statement(*sql, {}, nullptr, planned)) return false;
      if (sql::may_affect_session(*sql)) {
        auto found = std::make_shared<std::vector<sql::statement>>();
        sql::find_statements(*sql, standard_strings(), *found);
        to.executed = found;
        to.controls += count_controls(to.executed);
      }
      encoding_uncertain_ = to.executed && !to.executed->empty();
      ask_for(now, to, at, planned, *sql);
    } else if (part.type == fe::parse && at + 1 < now.parts.size() &&
               now.parts[at + 1].type == fe::bind && now.parts[at + 1].target == part.target) {
      continue;   // its Bind asks
    } else if (part.target && (part.type == fe::parse || part.type == fe::bind)) {
      const auto& statement = part.target;
      if (!plan_statement(statement->sql, as_bytes(statement->types), statement.get(), planned)) {
        return false;
      }
      // What is only prepared and described is the same on any shard: drivers ask so for types.
      if (part.type == fe::parse) continue;
      to.names_portals = to.names_portals || part.body[0] != 0;
      // What comes behind a SET in the same unit is read under a setting that is not known yet.
      encoding_uncertain_ = encoding_uncertain_ || (to.executed && !to.executed->empty());
      to.executed = effects_of(*statement, part.body);
      to.controls += count_controls(to.executed);
      to.text = statement->sql;
      ask_for(now, to, at, planned, statement->sql);
      if (other_meaning && !to.refused && endpoint_->sharded) {
        to.refused = {"0A000", "what stands behind a change of search_path, of the role or of "
                      "standard_conforming_strings in one batch may mean something else",
                      "Send Sync behind SET.", {}};
      }
      other_meaning = other_meaning ||
                      (to.executed && std::any_of(to.executed->begin(), to.executed->end(),
                                                  changes_meaning));
    } else if (part.type == fe::function_call && endpoint_->sharded) {
      to.refused = {"0A000", "function calls by the fast path cannot be placed on a shard", {}, {}};
    }
  }
  return true;
}

// What the statement of one part adds to the goal.
void client::ask_for(unit& now, unit_goal& to, std::size_t at, const plan_ref& planned,
                     std::string_view sql) {
  if (!endpoint_->sharded) return;
  const auto& p = planned->plan;
  const auto& from = now.parts[at];
  const bool out = p.destination == destination::copy_out;
  const bool copy = out || p.destination == destination::copy_in;
  if (copy) to.copies = planned;
  if (to.refused) return;
  const auto& owners = *endpoint_->owners;
  to.writes = to.writes || p.access == plan::access::write;
  if (p.destination == destination::refused) {
    to.refused = p.error;
  } else if (copy) {
    to.fenced = to.fenced || !owners.fence.empty() || unseen();
    if (owners.moving && out) to.refused = shard_copy::on_two_shards();
  } else if (p.destination == destination::all_shards) {
    if (to.target.where == aim::kind::shard) to.refused = begun_on_one;
    to.target.where = aim::kind::all;
    to.fenced = to.fenced || !owners.fence.empty() || unseen();
    to.everywhere = planned;
    if (!p.rows.table.empty()) now.writes.push_back({&from, planned});
  } else if (p.destination == destination::one_shard) {
    std::uint32_t shard = 0;
    bool in_fence = false;
    pg_error why;
    if (to.target.where == aim::kind::all) {
      to.refused = shares_a_batch;
    } else if (!key_shard(p, sql, from.type == fe::bind ? &from.body : nullptr, shard, in_fence,
                          why)) {
      to.refused = std::move(why);
    } else if (to.target.where == aim::kind::shard && to.target.shard != shard) {
      to.refused = two_shards(to.target.shard, shard);
    } else {
      to.target = {aim::kind::shard, shard};
    }
    to.fenced = to.fenced || in_fence || unseen();
  }
}

}  // namespace pgsled::frontend
