#include "common/commit/deadlock.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace pgsled::commit {

namespace {

using node = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;

node node_of(const mark& who, std::uint32_t shard, std::uint32_t pid) {
  return who.client != 0 ? node{who.client, who.began, 0, 0} : node{0, 0, shard + 1, pid};
}

using graph = std::map<node, std::set<node>>;

std::set<node> reached_from(const graph& edges, const node& from) {
  std::set<node> seen;
  std::vector<node> next{from};
  while (!next.empty()) {
    const node at = next.back();
    next.pop_back();
    const auto found = edges.find(at);
    if (found == edges.end()) continue;
    for (const node& one : found->second) {
      if (seen.insert(one).second) next.push_back(one);
    }
  }
  return seen;
}

// Of two times of 31 bits, taken less than 12 days apart.
bool younger(std::uint32_t one, std::uint32_t other) {
  return ((one - other) & 0x7fffffff) < 0x40000000 && one != other;
}

}  // namespace

std::string mark_sql(const mark& who) {
  return fmt::format("SELECT pg_catalog.pg_advisory_xact_lock_shared({}, {})", who.client,
                     who.began);
}

std::vector<mark> deadlock_victims(const std::vector<waits_for>& all) {
  graph edges;
  for (const waits_for& one : all) {
    edges[node_of(one.waiter, one.shard, one.waiter_pid)].insert(
        node_of(one.blocker, one.shard, one.blocker_pid));
  }
  std::map<node, std::set<node>> reached;
  for (const auto& [from, to] : edges) reached[from] = reached_from(edges, from);
  std::vector<mark> victims;
  std::set<node> done;
  for (const auto& [from, to] : edges) {
    if (done.contains(from) || !reached[from].contains(from)) continue;
    std::set<node> circle;
    for (const node& one : reached[from]) {
      if (reached.contains(one) && reached[one].contains(from)) circle.insert(one);
    }
    done.insert(circle.begin(), circle.end());
    std::set<std::uint32_t> shards;
    for (const waits_for& one : all) {
      if (circle.contains(node_of(one.waiter, one.shard, one.waiter_pid)) &&
          circle.contains(node_of(one.blocker, one.shard, one.blocker_pid))) {
        shards.insert(one.shard);
      }
    }
    if (shards.size() < 2) continue;
    mark victim;
    for (const node& one : circle) {
      const mark who{std::get<0>(one), std::get<1>(one)};
      if (who.client == 0) continue;
      if (victim.client == 0 || younger(who.began, victim.began)) victim = who;
    }
    if (victim.client != 0) victims.push_back(victim);
  }
  return victims;
}

}  // namespace pgsled::commit
