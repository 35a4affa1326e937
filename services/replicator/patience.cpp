#include "services/replicator/patience.hpp"

#include <algorithm>

namespace pgsled::replicator {

void patience::configure(const std::vector<std::pair<std::string, std::uint64_t>>& joining) {
  std::map<std::string, state> next;
  for (const auto& [name, configuration] : joining) {
    state one;
    if (const auto found = databases_.find(name); found != databases_.end()) one = found->second;
    if (one.configuration != configuration) one = {configuration, 0, 0, false};
    next.emplace(name, one);
  }
  databases_ = std::move(next);
}

std::optional<std::string> patience::due(
    std::int64_t now, const std::function<bool(const std::string&)>& busy) const {
  for (const auto& [name, one] : databases_) {
    if (!one.over && now >= one.at && !(busy && busy(name))) return name;
  }
  return std::nullopt;
}

void patience::ended(const std::string& database, end how, std::int64_t now) {
  const auto found = databases_.find(database);
  if (found == databases_.end()) return;
  state& one = found->second;
  if (how == end::done) {
    // Another shard may be joining; the router may not have said yet that this one is not.
    one.tries = 0;
    one.at = now + first_pause;
    return;
  }
  one.over = how != end::failed || ++one.tries >= most_tries;
  if (!one.over) one.at = now + std::min(first_pause << (one.tries - 1), longest_pause);
}

std::optional<std::int64_t> patience::next_try(const std::string& database,
                                               std::int64_t now) const {
  const auto found = databases_.find(database);
  if (found == databases_.end() || found->second.over) return std::nullopt;
  return std::max<std::int64_t>(found->second.at - now, 0);
}

}  // namespace pgsled::replicator
