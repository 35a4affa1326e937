// What all legs of a transaction over several shards are told, and its end.

#include <algorithm>

#include "common/log/json_escape.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/same_rows.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

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
  if (status() == 'I' && !steps_ && ends_with_drain()) return;
  resume();
  watch();
}

}  // namespace pgsled::frontend
