#include "services/router/move_desk.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace pgsled::router {

namespace {

constexpr std::int64_t retry_settling = 1000;

}  // namespace

void move_desk::refuse(const asker& who, std::string sqlstate, std::string message,
                       std::string hint) {
  calls_.error(who, {std::move(sqlstate), std::move(message), std::move(hint), {}});
}

void move_desk::tell(const std::string& database, const move& one) {
  const bool up = one.fence_is != phase::none && one.fence_is != phase::setting;
  calls_.tell({database, one.other, one.job, up ? one.fence : std::string(),
               up ? one.buckets : std::vector<std::uint32_t>(), up && !one.other.empty()});
}

move_desk::move* move_desk::find(const asker& who, const std::string& database,
                                 const std::string& job) {
  const auto found = moves_.find(database);
  if (found == moves_.end() || found->second.job != job || job.empty() || found->second.working) {
    refuse(who, "55006", fmt::format("the move {} of database \"{}\" is not registered", job,
                                     database));
    return nullptr;
  }
  return &found->second;
}

// A database takes part in one move at a time, as either of the two.
bool move_desk::taken(const asker& who, const std::string& database, const std::string& but_by) {
  for (const auto& [name, one] : moves_) {
    if ((name != database && one.other != database) || name == but_by) continue;
    refuse(who, "55006",
           fmt::format("another move of database \"{}\" is registered: {}", database,
                       one.job.empty() ? "just beginning" : one.job),
           "Wait for its end, or abort it.");
    return true;
  }
  return false;
}

void move_desk::begin(const asker& who, const std::string& database, const std::string& job,
                      std::int64_t, const std::string& other) {
  if (taken(who, database, database) || (!other.empty() && taken(who, other, database))) return;
  move& one = moves_[database];
  if (one.working || (!one.job.empty() && (one.job != job || one.other != other)) || job.empty()) {
    return refuse(who, "55006",
                  fmt::format("another move of database \"{}\" is registered: {}", database,
                              one.job.empty() ? "just beginning" : one.job),
                  "Wait for its end, or abort it.");
  }
  one.working = true;
  one.other = other;
  waiting_[database] = who;
  calls_.work({move_work::kind::begin, database, job, {}, other});
}

void move_desk::end(const asker& who, const std::string& database, const std::string& job,
                    std::int64_t, bool lost) {
  move* one = find(who, database, job);
  if (one == nullptr) return;
  if (one->fence_is != phase::none) {
    return refuse(who, "55006", fmt::format("the fence of move {} is still up", job));
  }
  one->working = true;
  waiting_[database] = who;
  calls_.work({move_work::kind::end, database, job, {}, one->other, lost});
}

void move_desk::fence(const asker& who, const std::string& database, const std::string& job,
                      std::vector<std::uint32_t> buckets, std::int64_t wait_ms,
                      std::int64_t now, bool whole) {
  move* one = find(who, database, job);
  if (one == nullptr) return;
  if (whole == one->other.empty() || (whole && !buckets.empty())) {
    return refuse(who, "22023",
                  "a move to other servers, and no other, fences all of its database");
  }
  if (one->fence_is != phase::none) {
    return refuse(who, "55006", fmt::format("move {} has a fence already", job));
  }
  if (wait_ms <= 0 || buckets.size() > max_buckets) {
    return refuse(who, "22023", "a fence needs a time to wait and at most 65536 buckets");
  }
  one->fence = fmt::format("{}/{}-{}", job, now, ++fences_);
  one->buckets = std::move(buckets);
  one->fence_is = phase::setting;
  one->waits_for_fence = who;
  one->holder = who.from;
  one->give_up = false;
  one->until = now + std::min(wait_ms, longest_drain);
  calls_.work({move_work::kind::set_fence, database, job, one->fence, one->other});
}

void move_desk::lift(const asker& who, const std::string& database, const std::string& job,
                     std::int64_t now) {
  move* one = find(who, database, job);
  if (one == nullptr) return;
  if (one->fence_is == phase::setting || one->fence_is == phase::announced) {
    return refuse(who, "55006", fmt::format("the fence of move {} is still being raised", job));
  }
  one->lifts.push_back(who);
  if (one->fence_is != phase::lifting) start_lifting(database, *one, now);
}

// Also without a fence: what map holds is found out all the same.
void move_desk::start_lifting(const std::string& database, move& one, std::int64_t now) {
  one.fence_is = phase::lifting;
  one.retry_at = now + retry_settling;
  one.settling = true;
  calls_.settle(database, one.other);
}

void move_desk::worked(const move_work& done, const result<bool>& how, std::int64_t now) {
  const auto found = moves_.find(done.database);
  if (found == moves_.end()) return;
  move& one = found->second;
  if (done.what == move_work::kind::set_fence) {
    if (one.fence_is != phase::setting || one.fence != done.fence) return;
    if (how && !one.give_up) {
      one.fence_is = phase::announced;
      return tell(done.database, one);
    }
    // Whether it stands on some shard is not known.
    one.why = how ? pg_error{"57P01", "the replicator is gone", {}, {}} : how.error();
    return start_lifting(done.database, one, now);
  }
  one.working = false;
  const asker who = std::exchange(waiting_[done.database], {});
  waiting_.erase(done.database);
  if (!how) {
    if (!one.job.empty()) return calls_.error(who, how.error());
    const std::string other = one.other;
    moves_.erase(found);
    calls_.error(who, how.error());
    // It may be registered on some shards, or another one is that this router does not know of.
    return calls_.settle(done.database, other);
  }
  one.job = done.what == move_work::kind::begin ? done.job : std::string();
  tell(done.database, one);   // with `other`, which hears of the end, too
  if (one.job.empty()) {
    telling_.push_back({who, one.epoch, now + telling_limit});
    moves_.erase(found);
    return;
  }
  // A fence that an earlier life of the job has left goes, too.
  one.lifts.push_back(who);
  if (one.fence_is == phase::none) start_lifting(done.database, one, now);
}

void move_desk::settled(const std::string& database, bool known, std::uint64_t epoch,
                        const std::string& job, std::int64_t now, const std::string& other) {
  const auto found = moves_.find(database);
  if (found == moves_.end()) {
    if (!known || job.empty()) return;
    // An earlier router's.
    move& one = moves_[database];
    one.job = job;
    one.other = other;
    one.epoch = epoch;
    return tell(database, one);
  }
  move& one = found->second;
  if (known) one.epoch = epoch;
  if (one.fence_is != phase::lifting || !one.settling) return;
  one.settling = false;
  if (!known) return;   // the fence stays up until it is
  one.fence_is = phase::none;
  one.fence.clear();
  one.buckets.clear();
  tell(database, one);
  if (!one.why.sqlstate.empty()) {
    const auto who = std::exchange(one.waits_for_fence, {});
    const auto why = std::exchange(one.why, {"", "", "", ""});
    if (!who.from.empty()) calls_.error(who, why);
  }
  for (const asker& who : std::exchange(one.lifts, {})) {
    telling_.push_back({who, epoch, now + telling_limit});
  }
}

void move_desk::gone(const std::string& instance, std::int64_t now) {
  std::erase_if(telling_, [&](const telling& one) { return one.who.from == instance; });
  for (auto& [database, one] : moves_) {
    std::erase_if(one.lifts, [&](const asker& who) { return who.from == instance; });
    if (one.holder != instance) continue;
    one.waits_for_fence = {};
    if (one.fence_is == phase::setting) {
      one.give_up = true;
    } else if (one.fence_is == phase::announced || one.fence_is == phase::holding) {
      start_lifting(database, one, now);
    }
  }
}

void move_desk::tick(std::int64_t now) {
  for (auto& [database, one] : moves_) {
    if (one.fence_is == phase::announced && calls_.drained(one.fence)) {
      one.fence_is = phase::holding;
      one.until = now + longest_fence;
      const auto who = std::exchange(one.waits_for_fence, {});
      calls_.answer(who, one.epoch, one.fence);
    } else if (one.fence_is == phase::announced && now >= one.until) {
      const auto late = calls_.late(one.fence);
      one.why = {"55P03",
                 fmt::format("older transactions were still open when the fence of move {} had to "
                             "hold; waited for {}", one.job, fmt::join(late, ", ")),
                 "It is lifted; try again later.", {}};
      start_lifting(database, one, now);
    } else if (one.fence_is == phase::holding && now >= one.until) {
      start_lifting(database, one, now);
    } else if (one.fence_is == phase::lifting && !one.settling && now >= one.retry_at) {
      start_lifting(database, one, now);
    }
  }
  if (telling_.empty()) return;
  const bool all = calls_.told();
  auto waiting = std::exchange(telling_, {});
  for (telling& one : waiting) {
    if (all) {
      calls_.answer(one.who, one.epoch, {});
    } else if (now >= one.until) {
      const auto late = calls_.late({});
      refuse(one.who, "55P03",
             fmt::format("not everybody has acknowledged it: {}", fmt::join(late, ", ")));
    } else {
      telling_.push_back(std::move(one));
    }
  }
}

std::string move_desk::fence_of(const std::string& database) const {
  const auto found = moves_.find(database);
  if (found == moves_.end()) return {};
  const move& one = found->second;
  return one.fence_is == phase::lifting ? std::string() : one.fence;
}

std::vector<std::string> move_desk::fences() const {
  std::vector<std::string> all;
  for (const auto& [database, one] : moves_) {
    if (auto fence = fence_of(database); !fence.empty()) all.push_back(std::move(fence));
  }
  return all;
}

bool move_desk::in_pair(const std::string& database) const {
  return std::any_of(moves_.begin(), moves_.end(), [&](const auto& one) {
    return !one.second.other.empty() && (one.first == database || one.second.other == database);
  });
}

std::string move_desk::other_of(const std::string& database) const {
  const auto found = moves_.find(database);
  return found == moves_.end() ? std::string() : found->second.other;
}

std::string move_desk::job_of(const std::string& database) const {
  const auto found = moves_.find(database);
  return found == moves_.end() ? std::string() : found->second.job;
}

}  // namespace pgsled::router
