// By which plan a statement goes: what names mean for the session, and the question to the router.

#include "common/sql/parse.hpp"
#include "common/sql/shape.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

// Whose schema comes first depends on who the session is; no path stands for the default one.
bool names_user(std::string_view path) {
  return path.empty() || path.find("$user") != path.npos;
}

}  // namespace

// By which names are read: what the transaction has set goes before what the session has.
std::string_view client::search_path() const {
  const auto* set = script_.search_path();
  const bool by_default = set != nullptr && set->size() == 7 && starts_with_word(*set, "default");
  if (set != nullptr ? set->empty() : shadow_->path_unknown()) return plan::unknown_path;
  std::string_view path;
  if (set != nullptr && !by_default) {
    path = *set;
  } else if (const auto& session = by_default ? shadow_->base() : shadow_->current();
             const auto* known = session->search_path) {
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

// While all of a database moves to other servers its statements are looked at, because DDL has to
// be refused. One that has things of its own on its connection may change those: temporary tables.
// What else it changes is found before the servers change.
bool client::planned() const {
  if (endpoint_->planned) return true;
  if (!endpoint_->owners->leaving) return false;
  return endpoint_->mode == pool_mode::session ? pins_ == 0 : !pinned_;
}

// What a plan depends on besides the statement's text.
void client::write_scope(std::string& to) const {
  to.assign(endpoint_->database.name).push_back('\0');
  to.append(endpoint_->user.name).push_back('\0');
  to.append(search_path()).push_back('\0');
}

// As a comparison with what write_scope() writes, which costs more.
bool client::is_scope(std::string_view scope) const {
  const auto leads = [&](std::string_view part) {
    if (!scope.starts_with(part) || scope.size() == part.size() || scope[part.size()] != '\0') {
      return false;
    }
    scope.remove_prefix(part.size() + 1);
    return true;
  };
  return leads(endpoint_->database.name) && leads(endpoint_->user.name) && leads(search_path()) &&
         scope.empty();
}

// False: suspended until the router has answered. `into` stays null when the parser does not know
// the syntax; the error then says so.
bool client::plan_statement(std::string_view sql, byte_span types, statement* remember,
                            plan_ref& into) {
  const bool cached = endpoint_->database.dispatch != "always" && unsettled_.empty();
  for (const auto& [text, answer] : answers_) {
    if (std::string_view(text).starts_with(sql) &&
        std::string_view(text).substr(sql.size()) == as_text(types)) {
      into = answer;
      return true;
    }
  }
  if (cached && remember != nullptr && remember->plan && remember->plan->epoch == worker_.epoch() &&
      is_scope(remember->plan->scope)) {
    worker_.counters().plans_cached.add();
    into = remember->plan;
    return true;
  }
  auto& key = worker_.plan_key();
  write_scope(key);
  const auto scope_length = key.size();
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
  const auto limit = std::chrono::milliseconds(worker_.settings().checkout_timeout);
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

}  // namespace pgsled::frontend
