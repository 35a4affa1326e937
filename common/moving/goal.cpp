#include "common/moving/goal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace pgsled::moving {

namespace {

using buckets_of = std::map<std::uint32_t, std::vector<std::uint32_t>>;   // shard → its buckets

buckets_of owned_in(const bucket_map& map) {
  buckets_of owned;
  for (std::uint32_t bucket = 0; bucket < map.size(); ++bucket) {
    owned[map[bucket]].push_back(bucket);
  }
  return owned;
}

// One after the other to whoever has the fewest, the lowest number first. As everybody ends at the
// same height, the rest of the way is the same when some have got theirs already.
std::optional<next_move> next_to_remove(const bucket_map& map, std::uint32_t shard) {
  buckets_of owned = owned_in(map);
  const auto leaving = owned.find(shard);
  if (leaving == owned.end()) return std::nullopt;
  auto left = std::move(leaving->second);
  owned.erase(leaving);
  if (owned.empty()) return std::nullopt;
  std::map<std::uint32_t, std::size_t> gets;
  for (std::size_t i = 0; i < left.size(); ++i) {
    const auto poorest = std::min_element(
        owned.begin(), owned.end(), [&](const auto& a, const auto& b) {
          return a.second.size() + gets[a.first] < b.second.size() + gets[b.first];
        });
    ++gets[poorest->first];
  }
  const auto most = std::max_element(gets.begin(), gets.end(), [](const auto& a, const auto& b) {
    return a.second < b.second;
  });
  left.resize(most->second);
  return next_move{most->first, std::move(left)};
}

// All get the same, and those that have the most already keep one more where it does not go even.
// Who is to have one more gets its part first: later it is among those that have the most.
std::optional<next_move> next_to_rebalance(const bucket_map& map) {
  buckets_of owned = owned_in(map);
  if (owned.size() < 2) return std::nullopt;
  std::vector<std::pair<std::size_t, std::uint32_t>> richest;   // how many, shard
  for (const auto& [shard, buckets] : owned) richest.emplace_back(buckets.size(), shard);
  std::stable_sort(richest.begin(), richest.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const std::size_t even = map.size() / owned.size(), more = map.size() % owned.size();
  std::map<std::uint32_t, std::size_t> keeps;
  for (std::size_t i = 0; i < richest.size(); ++i) {
    keeps[richest[i].second] = even + (i < more ? 1 : 0);
  }
  next_move made;
  std::pair<std::size_t, std::size_t> best{0, 0};   // what it is to have, what it lacks
  for (const auto& [shard, buckets] : owned) {
    if (keeps[shard] <= buckets.size()) continue;
    const std::pair one{keeps[shard], keeps[shard] - buckets.size()};
    if (one <= best) continue;
    best = one;
    made.destination = shard;
  }
  const std::size_t lacks = best.second;
  if (lacks == 0) return std::nullopt;
  const auto spare = [&](const auto& one) {
    const std::size_t kept = keeps[one.first];
    return one.second.size() > kept ? one.second.size() - kept : 0;
  };
  while (made.buckets.size() < lacks) {
    const auto from = std::max_element(
        owned.begin(), owned.end(),
        [&](const auto& a, const auto& b) { return spare(a) < spare(b); });
    made.buckets.push_back(from->second.back());
    from->second.pop_back();
  }
  std::sort(made.buckets.begin(), made.buckets.end());
  return made;
}

}  // namespace

std::string_view name_of(goal_kind kind) {
  switch (kind) {
    case goal_kind::add_shard: return "add-shard";
    case goal_kind::remove_shard: return "remove-shard";
    case goal_kind::rebalance: return "rebalance";
  }
  return {};
}

std::optional<goal_kind> goal_kind_of(std::string_view name) {
  for (const auto kind : {goal_kind::add_shard, goal_kind::remove_shard, goal_kind::rebalance}) {
    if (name == name_of(kind)) return kind;
  }
  return std::nullopt;
}

std::string in_words(const goal& of) {
  if (of.kind == goal_kind::rebalance) return std::string(name_of(of.kind));
  return fmt::format("{} {}", name_of(of.kind), of.shard);
}

std::size_t owners_after(const bucket_map& map, const goal& of) {
  std::set<std::uint32_t> owners(map.begin(), map.end());
  if (of.kind == goal_kind::add_shard) owners.insert(of.shard);
  if (of.kind == goal_kind::remove_shard) owners.erase(of.shard);
  return owners.size();
}

std::optional<pg_error> objection(const bucket_map& map, std::size_t shards, const goal& of) {
  if (of.kind == goal_kind::rebalance) return std::nullopt;
  if (of.shard >= shards) {
    return pg_error{"55000", fmt::format("the file has no shard {}", of.shard),
                    "Shards are numbered from 0; see [[databases]] in pgdog.toml.", {}};
  }
  if (of.kind == goal_kind::remove_shard && owners_after(map, of) == 0) {
    return pg_error{"55000", fmt::format("no other shard than {} owns rows", of.shard),
                    "Add one first: pgsled reshard add-shard.", {}};
  }
  return std::nullopt;
}

std::optional<next_move> next_of(const bucket_map& map, const goal& of) {
  switch (of.kind) {
    case goal_kind::add_shard: {
      auto buckets = for_newcomer(map, of.shard);
      if (buckets.empty()) return std::nullopt;
      return next_move{of.shard, std::move(buckets)};
    }
    case goal_kind::remove_shard: return next_to_remove(map, of.shard);
    case goal_kind::rebalance: return next_to_rebalance(map);
  }
  return std::nullopt;
}

std::vector<std::uint32_t> owners_of(const bucket_map& map,
                                     const std::vector<std::uint32_t>& buckets) {
  std::set<std::uint32_t> owners;
  for (const std::uint32_t bucket : buckets) owners.insert(map.at(bucket));
  return {owners.begin(), owners.end()};
}

}  // namespace pgsled::moving
