// A Query of several statements that do not go to one place together: PostgreSQL runs them one
// after the other in one transaction, an implicit block unless BEGIN and COMMIT say otherwise, and
// so does this (PostgreSQL's manual, "Multiple Statements in a Simple Query").

#include <algorithm>

#include "common/sql/parse.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/query_steps.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

bool starts_with(std::string_view text, std::string_view lower_words) {
  return text.size() >= lower_words.size() &&
         std::equal(lower_words.begin(), lower_words.end(), text.begin(),
                    [](char wanted, char c) { return wanted == c || wanted == (c | 0x20); });
}

bool contains(std::string_view text, std::string_view lower_word) {
  for (; text.size() >= lower_word.size(); text.remove_prefix(1)) {
    if (starts_with(text, lower_word)) return true;
  }
  return false;
}

// PostgreSQL reads the whole text before it runs any of it.
bool changes_reading(std::string_view text) {
  return contains(text, "encoding") || contains(text, "names") ||
         contains(text, "conforming_strings") || contains(text, "backslash_quote");
}

bool has_more(std::string_view text) {
  const auto end = text.find(';');
  return end != text.npos && text.find_first_not_of("; \t\n\r\f\v", end) != text.npos;
}

// A block that no BEGIN has begun knows no savepoints, and no chains.
std::string_view beyond_implicit(const sql::statement& what, std::string_view text) {
  using enum sql::effect;
  const bool chain = chains(text);
  switch (what.effect) {
    case savepoint: return "SAVEPOINT";
    case release: return "RELEASE SAVEPOINT";
    case rollback_to: return "ROLLBACK TO SAVEPOINT";
    case commit: return chain ? "COMMIT AND CHAIN" : std::string_view{};
    case rollback: return chain ? "ROLLBACK AND CHAIN" : std::string_view{};
    default: return {};
  }
}

}  // namespace

// The Query cannot run as a whole. `go`: nor in steps.
client::routed client::take_apart(const unit& now, std::string_view text,
                                  const session::effects& executed) {
  const bool bound = pinned_ || endpoint_->mode != pool_mode::transaction;
  if (steps_ || batch_ || !has_more(text) || (bound && status() == 'I')) return routed::go;
  if (!standard_strings() && text.find('\\') != text.npos) return routed::go;
  if (executed && std::any_of(executed->begin(), executed->end(), [&](const auto& one) {
        const bool sets = one.effect != sql::effect::none && one.effect != sql::effect::begin;
        return (sets && changes_reading(text.substr(one.offset, one.length))) ||
               starts_with(text.substr(one.offset), "prepare transaction");
      })) {
    return routed::go;
  }
  const std::string sql(text);
  auto parts = sql::split(sql);
  if (!parts || parts->size() < 2) return routed::go;
  if (server_ != nullptr && !server_->ledger.empty()) {
    unit_left_ = 0;
    settle();
    return routed::suspended;
  }
  if (server_ != nullptr && server_->ledger.unsynced()) {
    if (movable() && !spread_) return settle_elsewhere();
    if (!in_block()) return routed::go;
    return sync_first();
  }
  flush_to_client();
  const auto* theirs = reported_ ? reported_->find("client_encoding") : nullptr;
  const bool ascii = std::all_of(sql.begin(), sql.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  const auto how = ascii                                    ? query_steps::counted::bytes
                   : theirs != nullptr && *theirs == "UTF8" ? query_steps::counted::utf8
                                                            : query_steps::counted::unknown;
  steps_ = std::make_unique<query_steps>(sql, std::move(*parts), how);
  steps_left_ = 0;
  answers_.clear();
  unit_left_ = now.bytes;
  return routed::done;
}

// Puts the next statement before the rest of the input, once the one before it is over.
bool client::next_step() {
  if (state_ != state::ready || steps_->ending() || steps_left_ > 0 || unit_left_ > 0) return false;
  flush_to_client();
  if (state_ == state::closed) return false;
  if (server_ != nullptr && !server_->ledger.empty()) {
    settle();
    return false;
  }
  // COMMIT or ROLLBACK has ended the block; what follows begins another.
  if (status() == 'I' && !spread_) batch_ = false;
  if (!steps_->more()) {
    end_steps();
    return false;
  }
  std::vector<sql::statement> effects;
  sql::find_statements(steps_->next_text(), standard_strings(), effects);
  const bool begins = effects.size() == 1 && effects[0].effect == sql::effect::begin;
  std::string message;
  if (status() == 'I' && !spread_ && !begins) {
    if (pinned_ && !steps_->last()) {
      steps_->take(message, false);
      refuse({"0A000", "the session is bound to its connection of one shard, where the statements "
                       "of a Query cannot be taken one by one", "Send them one at a time.", {}},
             true);
      return true;
    }
    if (!pinned_) {
      begin_batch();
      unrun_ = true;
    }
  }
  steps_->take(message, batch_);
  steps_left_ = message.size();
  pending_.insert(0, message);
  return true;
}

// ReadyForQuery, of which there is one; before it the end of an implicit block.
void client::end_steps() {
  const bool failed = steps_->failed();
  steps_->end();
  std::string sync;
  wire::write_sync(sync);
  unit end;
  read_unit(as_bytes(sync), end);
  if (batch_) {
    end_batch(end, as_bytes(sync), failed);
    unit_left_ = 0;
  } else {
    answer_unit(end, {});
  }
  if (state_ == state::ready && status() == 'I' && ends_with_drain()) return;
  if (may_let_go()) let_go();
  resume();
}

// What the implicit block of a Query or a batch does not take.
std::optional<pg_error> client::beyond_batch(const session::effects& executed,
                                             std::string_view text) const {
  const auto* only = only_effect(executed);
  if (only == nullptr || status() == 'E') return std::nullopt;
  const auto what = beyond_implicit(*only, text);
  if (what.empty()) return std::nullopt;
  return pg_error{"25P01", std::string(what) + " can only be used in transaction blocks", {}, {}};
}

// What PostgreSQL says of the end of an implicit block, and of what is local to that of a batch.
void client::warn_in_batch(const session::effects& executed, std::string_view text) {
  const auto* only = only_effect(executed);
  if (only == nullptr || status() == 'E') return;
  std::string what;
  if (only->effect == sql::effect::commit || only->effect == sql::effect::rollback) {
    what = "there is no transaction in progress";
  } else if (only->effect == sql::effect::set_local && !steps_ && starts_with_word(text, "set ")) {
    what = (starts_with_word(text, "set transaction")   ? "SET TRANSACTION"
            : starts_with_word(text, "set constraints") ? "SET CONSTRAINTS"
                                                        : "SET LOCAL") +
           std::string(" can only be used in transaction blocks");
  } else {
    return;
  }
  std::string notice;
  wire::write_notice(notice, "WARNING", {"25P01", what, {}, {}});
  write(notice);
}

}  // namespace pgsled::frontend
