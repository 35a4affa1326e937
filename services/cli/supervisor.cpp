#include "services/cli/supervisor.hpp"

#include <algorithm>
#include <array>

#include "common/base/result.hpp"

namespace pgsled::cli {
namespace {

struct group {
  supervisor::role role;
  supervisor::milliseconds cutoff;  // since the stop began; what is left then is killed
};
// Frontends have most of the time: clients finish their transactions there. The router goes last,
// because the others tell it that they leave.
constexpr std::array<group, 4> order = {{
    {supervisor::role::frontend, supervisor::milliseconds{7000}},
    {supervisor::role::pooler, supervisor::milliseconds{8500}},
    {supervisor::role::replicator, supervisor::milliseconds{9000}},
    {supervisor::role::router, supervisor::milliseconds{9500}},
}};

}  // namespace

supervisor::supervisor(std::vector<role> members) {
  for (const auto one : members) members_.push_back({one, false, {}, {}, {}, {}});
}

void supervisor::start(std::size_t index, time_point now, actions& to) {
  auto& one = members_[index];
  one.up = true;
  one.since = now;
  one.restart.reset();
  to.push_back({what::start, index});
}

supervisor::actions supervisor::begin(time_point now) {
  actions to;
  for (std::size_t i = 0; i < members_.size(); ++i) start(i, now, to);
  return to;
}

supervisor::actions supervisor::ended(std::size_t index, time_point now, bool clean) {
  PGSLED_ASSERT(index < members_.size());
  actions to;
  auto& one = members_[index];
  if (!one.up) return to;
  one.up = false;
  if (stopping_) {
    advance(now, to);
    return to;
  }
  if (clean && one.role == role::router) return stop(now);
  if (now - one.since >= long_enough_up) one.following = milliseconds{0};
  one.delay = one.following;
  one.following = one.delay.count() == 0 ? first_delay : std::min(one.delay * 2, longest_delay);
  one.restart = now + one.delay;
  return to;  // tick() starts it: a member that cannot even be started must not recurse
}

supervisor::actions supervisor::stop(time_point now) {
  actions to;
  if (stopping_) {
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].up) to.push_back({what::kill, i});
    }
    return to;
  }
  stopping_ = true;
  stop_began_ = now;
  for (auto& one : members_) one.restart.reset();
  group_ = 0;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].up && members_[i].role == order[0].role) to.push_back({what::terminate, i});
  }
  advance(now, to);
  return to;
}

bool supervisor::group_up(role of) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const member& one) { return one.up && one.role == of; });
}

void supervisor::advance(time_point now, actions& to) {
  while (group_ < order.size()) {
    const auto& current = order[group_];
    const bool late = now - stop_began_ >= current.cutoff;
    if (group_up(current.role) && !late) return;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].up && members_[i].role == current.role) to.push_back({what::kill, i});
    }
    if (++group_ == order.size()) return;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (members_[i].up && members_[i].role == order[group_].role) {
        to.push_back({what::terminate, i});
      }
    }
  }
}

supervisor::actions supervisor::reload() const {
  actions to;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (!stopping_ && members_[i].up && members_[i].role == role::router) {
      to.push_back({what::reload, i});
    }
  }
  return to;
}

supervisor::actions supervisor::tick(time_point now) {
  actions to;
  if (stopping_) {
    advance(now, to);
    return to;
  }
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].restart && *members_[i].restart <= now) start(i, now, to);
  }
  return to;
}

std::optional<supervisor::time_point> supervisor::next() const {
  if (stopping_) {
    if (group_ >= order.size()) return std::nullopt;
    return stop_began_ + order[group_].cutoff;
  }
  std::optional<time_point> first;
  for (const auto& one : members_) {
    if (one.restart && (!first || *one.restart < *first)) first = one.restart;
  }
  return first;
}

bool supervisor::finished() const {
  return stopping_ &&
         std::none_of(members_.begin(), members_.end(), [](const member& one) { return one.up; });
}

supervisor::milliseconds supervisor::delay_of(std::size_t index) const {
  return members_[index].delay;
}

}  // namespace pgsled::cli
