// How a transaction over several shards ends: who has written, who prepares, who decides.

#include <algorithm>
#include <array>
#include <limits>

#include "common/auth/scram.hpp"
#include "services/frontend/shards/leg.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

constexpr std::string_view can_prepare_sql =
    "SELECT pg_catalog.current_setting('max_prepared_transactions')::int > 0 AND "
    "pg_catalog.to_regprocedure('pgsled.decide(text,text,integer[])') IS NOT NULL";
constexpr std::string_view has_written_sql =
    "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL";

std::string new_id() {
  const auto random = auth::random_bytes(16);
  std::array<std::uint8_t, 16> bytes{};
  std::copy(random.begin(), random.end(), bytes.begin());
  return commit::make_id(bytes);
}

}  // namespace

void shard_transaction::rollback(done then) {
  PGSLED_ASSERT(!busy());
  ended_ = [then = std::move(then)](const pg_error* why, const std::string&) { then(why); };
  error_.reset();
  what_ = work::rolling_back;
  if (legs_.empty()) return finish(nullptr);
  for (auto& [shard, one] : legs_) one->ask("ROLLBACK");
}

// Nothing has been decided, and nothing will be.
void shard_transaction::undo(const pg_error& why) {
  if (!error_) error_ = std::make_unique<pg_error>(why);
  if (what_ == work::one_by_one && at_ > 1) {
    error_->detail = "It has been committed on " + std::to_string(at_ - 1) + " of " +
                     std::to_string(order_.size()) + " shards already.";
    error_->hint = "Bring the other shards to the same state by hand.";
  }
  for (auto& [shard, one] : legs_) {
    if (what_ == work::one_by_one && one->running) one->lease->settings_unknown = true;   // COMMIT
  }
  what_ = work::rolling_back;
  if (legs_.empty()) return finish(error_.get());
  // What a leg is still asked is answered before that, and ignored.
  for (auto& [shard, one] : legs_) one->ask("ROLLBACK");
}

void shard_transaction::commit(session::pair_set_ref settings, commit_mode mode, ended then) {
  PGSLED_ASSERT(!busy() && !legs_.empty());
  mode_ = mode;
  what_ = work::asking;
  committed_ = std::move(settings);
  ended_ = std::move(then);
  error_.reset();
  ended_ = [&counters = worker_.counters(), told = std::move(ended_)](const pg_error* why,
                                                                      const std::string& warning) {
    (why == nullptr ? counters.shard_commits : counters.shard_commits_failed).add();
    if (told) told(why, warning);
  };
  ask_what_wrote();
}

void shard_transaction::ask_what_wrote() {
  // A cancel of the client's that is on its way must have come before anything is decided. The
  // pooler ends it within seconds.
  const bool cancelling = std::any_of(legs_.begin(), legs_.end(), [](const auto& one) {
    return one.second->lease->cancelling && !one.second->lease->orphan;
  });
  if (cancelling) {
    timer_ = worker_.loop().after(std::chrono::milliseconds(2), [this] {
      timer_ = 0;
      auto& owner = worker_;
      if (what_ == work::asking) ask_what_wrote();
      owner.run_scheduled();
    });
    return;
  }
  for (auto& [shard, one] : legs_) {
    if (legs_.size() == 1) break;
    if (one->wrote) {
      // Rows must not be on some shards only, whatever the reason: then it is an error.
      if (defined_ && !rows_ && mode_ == commit_mode::atomic) one->ask(can_prepare_sql);
    } else {
      one->ask(has_written_sql);
    }
  }
  if (!any_running()) decide();
}

void shard_transaction::decide() {
  std::vector<commit::participant> all;
  std::size_t writers = 0;
  for (auto& [shard, one] : legs_) {
    const bool writes = one->wrote || legs_.size() == 1;
    writers += writes ? 1 : 0;
    // Who has only read is committed plainly, whatever it has used.
    all.push_back({shard, writes, writes ? one->unpreparable : std::string()});
  }
  if (writers > 1 && mode_ == commit_mode::refused && !(defined_ && !rows_)) {
    return undo({"0A000",
                 "the transaction has written on several shards and two_phase_commit is off",
                 "Set two_phase_commit = true, or cross_shard_writes = \"best_effort\" in "
                 "[pgsled] to commit on one shard after the other.",
                 {}});
  }
  if (writers > 1 && (mode_ != commit_mode::atomic || !cannot_prepare_.empty())) {
    what_ = work::one_by_one;
    order_ = shards();
    at_ = 0;
    return commit_next();
  }
  const auto who = commit::choose(all);
  if (!who) return undo(who.error());
  what_ = work::committing;
  coordinator_ =
      std::make_unique<commit::coordinator>(*who, endpoint_->database.name, new_id());
  perform(coordinator_->begin(now()));
}

void shard_transaction::commit_next() {
  if (at_ < order_.size()) return legs_.at(order_[at_++])->ask("COMMIT");
  finish(nullptr, cannot_prepare_.empty()
                      ? ""
                      : "committed on one shard after the other, not at once: on " +
                            cannot_prepare_ +
                            " max_prepared_transactions is 0 or schema pgsled is missing");
}

void shard_transaction::perform(std::vector<commit::action> actions) {
  for (auto& next : actions) {
    const auto found = legs_.find(next.shard);
    auto* one = found != legs_.end() ? found->second.get() : nullptr;
    switch (next.what) {
      case commit::action::kind::send:
        if (one != nullptr) one->ask(next.sql);
        break;
      case commit::action::kind::release:
        if (one != nullptr) release(*one);
        break;
      case commit::action::kind::drop:
        if (one != nullptr) drop(*one);
        break;
      case commit::action::kind::answer:
        finish(next.error.sqlstate.empty() ? nullptr : &next.error, next.warning);
        break;
    }
  }
  arm();
}

// What the operator has to do before transactions over several shards are possible.
void shard_transaction::explain(leg& one) {
  auto& error = *one.error;
  if (!coordinator_->may_cancel()) return;
  if (error.hint.find("max_prepared_transactions") != std::string::npos) {
    error.detail = error.message;
    error.message = "the transaction was rolled back: " + one.where() +
                    " cannot prepare it, because of its max_prepared_transactions";
    error.hint =
        "Set max_prepared_transactions on that server to at least its max_connections and restart "
        "it, or use keys of one shard in a transaction.";
  } else if ((error.sqlstate == "3F000" || error.sqlstate == "42883") &&
             error.message.find("pgsled") != std::string::npos) {
    error = {"55000",
             "the transaction was rolled back: " + one.where() +
                 " has no schema pgsled for decisions about commits",
             "The router makes it at its start, as the role of its user that may do so: GRANT "
             "CREATE ON DATABASE to it, and see its log.",
             error.message};
  }
}

void shard_transaction::arm() {
  worker_.loop().cancel(std::exchange(timer_, 0));
  if (what_ != work::committing) return;
  const auto at = coordinator_->next_tick();
  if (at == std::numeric_limits<std::int64_t>::max()) return;
  timer_ = worker_.loop().at(net::time_point(std::chrono::milliseconds(at)), [this] {
    timer_ = 0;
    auto& owner = worker_;
    perform(coordinator_->tick(now()));
    owner.run_scheduled();
  });
}

}  // namespace pgsled::frontend
