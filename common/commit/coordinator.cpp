#include "common/commit/coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/commit/statements.hpp"

namespace pgsled::commit {

namespace {

constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
constexpr std::string_view nobody_has_it = "42704", somebody_is_at_it = "55000";

pg_error not_committed(std::uint32_t shard, std::string_view tag) {
  const std::string_view said = tag.empty() ? "nothing" : tag.substr(0, 64);
  return {"40000", fmt::format("the transaction was rolled back: shard {} answered {} to its "
                               "commit", shard, said), {}, {}};
}

}  // namespace

coordinator::coordinator(choice who, std::string database, std::string id, limits bounds)
    : who_(std::move(who)), limits_(bounds) {
  PGSLED_ASSERT(who_.coordinator || !who_.readers.empty());
  PGSLED_ASSERT(who_.coordinator || who_.prepared.empty());
  name_.coordinator = who_.coordinator.value_or(0);
  name_.database = std::move(database);
  name_.id = std::move(id);
  for (const std::uint32_t shard : who_.readers) legs_[shard].part = role::reader;
  for (const std::uint32_t shard : who_.prepared) legs_[shard].part = role::other;
  if (who_.coordinator) legs_[*who_.coordinator].part = role::coordinator;
}

void coordinator::send(actions& to, std::uint32_t shard, leg& one, std::string sql) {
  PGSLED_ASSERT(!one.waits && !one.settled);
  one.waits = true;
  to.push_back({action::kind::send, shard, std::move(sql), {"", "", "", ""}, {}});
}

void coordinator::settle(actions& to, std::uint32_t shard, leg& one, action::kind how) {
  one.settled = true;
  one.waits = false;
  to.push_back({how, shard, {}, {"", "", "", ""}, {}});
}

std::vector<action> coordinator::begin(std::int64_t now) {
  actions to;
  until_ = now + limits_.decide_within;
  // Readers first: their COMMIT can fail (serialization), and then nothing must be committed.
  for (const std::uint32_t shard : who_.readers) {
    send(to, shard, legs_[shard], statements::commit());
  }
  if (two_phases()) {
    const std::uint32_t shard = *who_.coordinator;
    send(to, shard, legs_[shard], statements::open_decision(limits_.decide_within));
  } else {
    state_ = state::preparing;
    decide_if_all_voted(to, now);
  }
  return to;
}

void coordinator::prepare(actions& to, std::int64_t now) {
  for (const std::uint32_t shard : who_.prepared) {
    auto gid = make_gid(name_, shard);
    if (!gid) return abort(to, gid.error(), now);
    gids_[shard] = std::move(*gid);
  }
  state_ = state::preparing;
  for (const auto& [shard, gid] : gids_) send(to, shard, legs_[shard], statements::prepare(gid));
}

void coordinator::decide_if_all_voted(actions& to, std::int64_t now) {
  for (const auto& [shard, one] : legs_) {
    if (one.part != role::coordinator && !one.voted) return;
  }
  state_ = state::deciding;
  if (!who_.coordinator) return decided(to, now);   // nobody has written anything
  const std::uint32_t shard = *who_.coordinator;
  send(to, shard, legs_[shard],
       two_phases() ? statements::decide(name_.key(), name_.database, who_.prepared)
                    : statements::commit());
}

void coordinator::decided(actions& to, std::int64_t now) {
  state_ = state::finishing;
  until_ = now + limits_.finish_within;
  for (const auto& [shard, gid] : gids_) {
    if (!legs_[shard].settled) send(to, shard, legs_[shard], statements::finish(gid, true));
  }
  answer_when_done(to);
}

// Definite: the decision has not been sent, or its server has said that it failed.
void coordinator::abort(actions& to, pg_error why, std::int64_t now) {
  state_ = state::aborting;
  why_ = std::move(why);
  until_ = now + limits_.finish_within;
  for (auto& [shard, one] : legs_) {
    if (!one.settled && !one.waits) undo(to, shard, one);
  }
  answer_when_done(to);
}

void coordinator::undo(actions& to, std::uint32_t shard, leg& one) {
  const bool prepared = one.part == role::other && one.voted;
  one.undoing = true;
  send(to, shard, one, prepared ? statements::finish(gids_[shard], false) : "ROLLBACK");
}

// The answer to a COMMIT PREPARED, ROLLBACK PREPARED or ROLLBACK.
void coordinator::finished(actions& to, std::uint32_t shard, leg& one, const pg_error* error,
                           std::int64_t now) {
  if (error != nullptr && error->sqlstate == somebody_is_at_it && one.voted) {
    one.retry_at = now + limits_.retry_after;   // a resolver, to the same end
    return;
  }
  // The gid is nobody else's, so who finished it before did what was decided.
  one.confirmed = error == nullptr || error->sqlstate == nobody_has_it;
  settle(to, shard, one, error == nullptr || one.voted ? action::kind::release
                                                       : action::kind::drop);
  answer_when_done(to);
}

std::vector<action> coordinator::completed(std::uint32_t shard, std::string_view tag,
                                           std::string_view value, std::int64_t now) {
  actions to;
  const auto found = legs_.find(shard);
  if (found == legs_.end() || !found->second.waits) return to;
  leg& one = found->second;
  one.waits = false;
  switch (state_) {
    case state::naming:
    case state::preparing:
      if (one.part == role::coordinator) {
        name_.mark = value;
        prepare(to, now);   // refuses what is no mark
        return to;
      }
      if (tag == (one.part == role::reader ? "COMMIT" : "PREPARE TRANSACTION")) {
        one.voted = true;
        if (one.part == role::reader) {
          one.confirmed = true;
          settle(to, shard, one, action::kind::release);
        }
        if (state_ == state::preparing) decide_if_all_voted(to, now);
        return to;
      }
      one.confirmed = true;   // a ROLLBACK: nothing of it is left there
      settle(to, shard, one, action::kind::release);
      abort(to, not_committed(shard, tag), now);
      return to;
    case state::deciding:
      one.confirmed = true;
      settle(to, shard, one, action::kind::release);
      if (tag == "COMMIT") {
        decided(to, now);
      } else {
        abort(to, not_committed(shard, tag), now);
      }
      return to;
    case state::finishing: finished(to, shard, one, nullptr, now); return to;
    case state::aborting:
      if (one.undoing) {
        finished(to, shard, one, nullptr, now);
      } else if (tag == "COMMIT" || tag == "ROLLBACK") {   // a reader, or a vote of no
        finished(to, shard, one, nullptr, now);
      } else {                                             // what was sent before the abort
        one.voted = tag == "PREPARE TRANSACTION";
        undo(to, shard, one);
      }
      return to;
  }
  return to;
}

std::vector<action> coordinator::failed(std::uint32_t shard, const pg_error& error,
                                        std::int64_t now) {
  actions to;
  const auto found = legs_.find(shard);
  if (found == legs_.end() || !found->second.waits) return to;
  leg& one = found->second;
  one.waits = false;
  switch (state_) {
    case state::naming:
    case state::preparing:
    case state::deciding: {
      // A failed COMMIT or PREPARE has rolled back; a failed statement before it has not yet, and
      // a ROLLBACK too many does no harm.
      pg_error why = error;
      if (state_ == state::deciding && two_phases() && error.sqlstate == "23505") {
        why = {"40000", "the transaction was rolled back: its commit took longer than " +
                            fmt::format("{} ms", limits_.decide_within), {}, error.message};
      }
      abort(to, std::move(why), now);
      return to;
    }
    case state::finishing: finished(to, shard, one, &error, now); return to;
    case state::aborting:
      if (one.undoing) {
        finished(to, shard, one, &error, now);
      } else {
        undo(to, shard, one);
      }
      return to;
  }
  return to;
}

std::vector<action> coordinator::lost(std::uint32_t shard, std::string_view why,
                                      std::int64_t now) {
  actions to;
  const auto found = legs_.find(shard);
  if (found == legs_.end() || found->second.settled) return to;
  leg& one = found->second;
  const bool waited = std::exchange(one.waits, false);
  one.settled = true;
  one.retry_at = 0;
  if (one.part == role::coordinator && state_ == state::deciding && waited) {
    unknown(to, why);
  } else if (state_ < state::deciding) {
    // What is prepared there, if anything, is the resolver's, who will find no decision.
    abort(to, {"08006", fmt::format("the transaction was rolled back: shard {}: {}", shard, why),
               {}, {}}, now);
  } else {
    answer_when_done(to);
  }
  return to;
}

// The row decides, and it may be there. Nothing may be finished from here.
void coordinator::unknown(actions& to, std::string_view why) {
  for (auto& [shard, one] : legs_) {
    if (!one.settled) settle(to, shard, one, action::kind::release);
  }
  pg_error error{"08007", fmt::format("the connection to shard {} was lost during COMMIT: {}; the "
                                      "transaction may be committed", *who_.coordinator, why),
                 {}, {}};
  if (two_phases()) {
    error.hint = "It will be the same on all shards within seconds of their being reachable.";
    error.detail = "Decision " + name_.key() + ".";
  }
  answer(to, std::move(error), {});
}

void coordinator::answer(actions& to, pg_error error, std::string warning) {
  if (std::exchange(answered_, true)) return;
  to.push_back({action::kind::answer, 0, {}, std::move(error), std::move(warning)});
}

void coordinator::answer_when_done(actions& to) {
  if (answered_ || (state_ != state::finishing && state_ != state::aborting)) return;
  std::string left;
  for (const auto& [shard, one] : legs_) {
    if (!one.settled) return;
    if (!one.confirmed) left += (left.empty() ? "" : ", ") + std::to_string(shard);
  }
  if (state_ == state::aborting) return answer(to, why_, {});
  answer(to, {"", "", "", ""},
         left.empty() ? ""
                      : "committed; shard " + left + " will show it when it can be reached");
}

std::vector<action> coordinator::tick(std::int64_t now) {
  actions to;
  for (auto& [shard, one] : legs_) {
    if (one.retry_at == 0 || now < one.retry_at || one.settled) continue;
    one.retry_at = 0;
    send(to, shard, one, statements::finish(gids_[shard], state_ == state::finishing));
  }
  if (now < until_) return to;
  if (state_ < state::deciding) {
    abort(to, {"40000", fmt::format("the transaction was rolled back: its commit took longer than "
                                    "{} ms", limits_.decide_within), {}, {}}, now);
  } else if (state_ != state::deciding && !answered_) {
    // The client has waited long enough; what is left is the resolver's.
    for (auto& [shard, one] : legs_) {
      if (!one.settled) settle(to, shard, one, action::kind::drop);
    }
    answer_when_done(to);
  }
  return to;
}

std::int64_t coordinator::next_tick() const {
  std::int64_t at = answered_ || state_ == state::deciding ? never : until_;
  for (const auto& [shard, one] : legs_) {
    if (one.retry_at != 0 && !one.settled) at = std::min(at, one.retry_at);
  }
  return at;
}

bool coordinator::over() const {
  return answered_ && std::all_of(legs_.begin(), legs_.end(),
                                  [](const auto& one) { return one.second.settled; });
}

}  // namespace pgsled::commit
