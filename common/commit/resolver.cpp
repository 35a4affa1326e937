#include "common/commit/resolver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

namespace pgsled::commit {

namespace {

constexpr std::string_view nobody_has_it = "42704";

const found_decision* decision(const std::vector<shard_findings>& shards, const name& of) {
  if (of.coordinator >= shards.size()) return nullptr;
  for (const found_decision& one : shards[of.coordinator].decisions) {
    if (one.key == of.key()) return &one;
  }
  return nullptr;
}

// When the decision can no longer be made, by the coordinator's clock: the last part of the mark.
std::int64_t deadline_of(const name& of) {
  const auto last = of.mark.rfind('_');
  if (last == std::string::npos) return std::numeric_limits<std::int64_t>::max();
  std::int64_t at = 0;
  const char* end = of.mark.data() + of.mark.size();
  const auto [read, ec] = std::from_chars(of.mark.data() + last + 1, end, at, 16);
  return ec == std::errc() && read == end ? at : std::numeric_limits<std::int64_t>::max();
}

bool past_deadline(const resolution& one, const shard_findings& coordinator,
                   const resolver_limits& limits) {
  return coordinator.reached && coordinator.now > limits.slack &&
         deadline_of(one.of()) <= coordinator.now - limits.slack;
}

}  // namespace

void resolution::doubt(std::string why) {
  state_ = state::in_doubt;
  reason_ = std::move(why);
  steps_.clear();
}

std::optional<step> resolution::next() const {
  if (state_ != state::resolving || at_ >= steps_.size()) return std::nullopt;
  return steps_[at_];
}

void resolution::succeeded(std::string_view value) {
  if (at_ >= steps_.size()) return;
  if (steps_[at_].what == step::kind::settle) {
    // Only now is it known: the row that was read before may have been missing.
    if (value != "commit" && value != "abort") return doubt("the decision is not readable");
    for (step& one : steps_) one.commit = value == "commit";
    row_ = row_.value_or(found_decision{});
    row_->what = value == "commit" ? outcome::commit : outcome::abort;
  }
  finished_ = ++at_ == steps_.size() && !left_;
}

void resolution::failed(const pg_error& why) {
  if (at_ >= steps_.size()) return;
  const step& at = steps_[at_];
  if (at.what == step::kind::finish && why.sqlstate == nobody_has_it) {
    return succeeded({});   // another resolver, or the coordinator, has done it
  }
  reason_ = fmt::format("shard {}: {}", at.shard, why.message);
  if (at.what != step::kind::finish) {
    at_ = steps_.size();    // without a decision nothing may be finished
    return;
  }
  left_ = true;
  ++at_;
}

std::string_view resolution::state_name() const {
  switch (state_) {
    case state::in_progress: return row_ ? "committing" : "in progress";
    case state::unreachable: return "waits for shard";
    case state::in_doubt: return "in doubt";
    case state::resolving: break;
  }
  if (!row_) return "orphaned";
  return row_->what == outcome::commit ? "committing" : "aborting";
}

std::vector<resolution> resolve(const std::string& database,
                                const std::vector<shard_findings>& shards,
                                const resolver_limits& limits) {
  std::map<std::string, resolution> by_key;
  std::vector<resolution> made;
  std::set<std::string> prepared_keys;
  for (std::uint32_t shard = 0; shard < shards.size(); ++shard) {
    for (const found_prepared& one : shards[shard].prepared) {
      const auto gid = parse_gid(one.gid);
      if (gid && gid->of.database != database) continue;
      if (!gid) {
        resolution odd;
        odd.name_.id = one.gid;
        odd.age_ = one.age;
        odd.participants_ = {shard};
        odd.doubt("not a name that this version gives");
        made.push_back(std::move(odd));
        continue;
      }
      prepared_keys.insert(gid->of.key());
      resolution& of = by_key[fmt::format("{}_{}", gid->of.coordinator, gid->of.key())];
      if (of.participants_.empty()) {
        of.name_ = gid->of;
        if (const auto* row = decision(shards, gid->of)) of.row_ = *row;
      }
      of.participants_.push_back(shard);
      of.age_ = std::max(of.age_, one.age);
      step finish{step::kind::finish, shard, gid->of.key(), one.gid, one.owner, false};
      of.steps_.push_back(std::move(finish));
      if (gid->participant != shard) {
        of.doubt(fmt::format("it was prepared by shard {} and is on shard {}", gid->participant,
                             shard));
      } else if (of.row_ && of.row_->what == outcome::commit &&
                 std::count(of.row_->participants.begin(), of.row_->participants.end(), shard) ==
                     0) {
        of.doubt(fmt::format("its decision does not name shard {}", shard));
      } else if (!one.may_finish && of.reason_.empty()) {
        of.reason_ = fmt::format("shard {}: the router's role may not become \"{}\"", shard,
                                 one.owner);
      }
    }
  }
  for (auto& [key, one] : by_key) {
    const std::uint32_t at = one.name_.coordinator;
    if (one.state_ == resolution::state::in_doubt) {
    } else if (at >= shards.size()) {
      one.doubt(fmt::format("there is no shard {} that could have decided it", at));
    } else if (one.age_ < limits.grace && !past_deadline(one, shards[at], limits)) {
      one.state_ = resolution::state::in_progress;
    } else if (!shards[at].reached) {
      one.state_ = resolution::state::unreachable;
      one.reason_ = fmt::format("shard {}: {}", at, shards[at].problem);
    } else if (!one.row_ && one.age_ >= limits.retention) {
      one.doubt("it is older than decisions are kept, and there is none");
    } else {
      // Settling again what has a row makes sure that the row has reached the standbys.
      std::vector<step> first;
      if (!one.row_) first.push_back({step::kind::end_backend, at, one.name_.key(), {}, {}, false});
      first.push_back({step::kind::settle, at, one.name_.key(), {}, {}, false});
      one.steps_.insert(one.steps_.begin(), first.begin(), first.end());
    }
    if (one.state_ != resolution::state::resolving) one.steps_.clear();
    made.push_back(std::move(one));
  }
  std::stable_sort(made.begin(), made.end(),
                   [](const auto& a, const auto& b) { return a.age_ > b.age_; });
  const bool all = std::all_of(shards.begin(), shards.end(),
                               [](const shard_findings& one) { return one.reached; });
  for (std::uint32_t shard = 0; all && shard < shards.size(); ++shard) {
    for (const found_decision& row : shards[shard].decisions) {
      if (row.age < limits.keep_rows || prepared_keys.contains(row.key)) continue;
      resolution old;
      old.row_ = row;
      old.age_ = row.age;
      old.steps_.push_back({step::kind::forget, shard, row.key, {}, {}, false});
      made.push_back(std::move(old));
    }
  }
  return made;
}

}  // namespace pgsled::commit
