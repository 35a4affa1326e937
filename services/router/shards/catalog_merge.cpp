#include "services/router/shards/catalog_merge.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace pgsled::router {

namespace {

using table = plan::catalog::table_columns;
using plan::catalog;

// Integers of all sizes are the same as keys.
std::string family(const std::string& type) {
  return type == "int2" || type == "int4" || type == "int8" ? "an integer type" : "type " + type;
}

std::string described(const catalog::column_type& type) {
  return family(type.name) + (type.limit != 0 ? "(" + std::to_string(type.limit) + ")" : "") +
         (type.by_bytes ? "" : " with a nondeterministic collation");
}

// How the column is another one there; empty: as keys they are the same.
std::string difference(const table& here, std::size_t column, const table& there,
                       std::uint32_t shard) {
  const auto same = std::find(there.columns.begin(), there.columns.end(), here.columns[column]);
  const auto on = " on shard " + std::to_string(shard);
  if (same == there.columns.end()) return "is missing" + on;
  const auto at = static_cast<std::size_t>(same - there.columns.begin());
  if (column >= here.types.size() || at >= there.types.size()) return {};
  const auto mine = described(here.types[column]), theirs = described(there.types[at]);
  if (mine == theirs) return {};
  return "is of " + theirs + on + ", and of " + mine + " elsewhere";
}

}  // namespace

void merge_catalog(plan::catalog& first, const plan::catalog& other, std::uint32_t shard) {
  for (auto& here : first.tables) {
    const auto there = std::find_if(other.tables.begin(), other.tables.end(), [&](const auto& one) {
      return one.schema == here.schema && one.name == here.name;
    });
    if (there == other.tables.end()) continue;
    for (std::size_t i = 0; i < here.columns.size(); ++i) {
      auto what = difference(here, i, *there, shard);
      if (!what.empty()) here.differs.emplace(here.columns[i], std::move(what));
    }
    if (here.columns != there->columns) here.ordered = false;
  }
  // A path that is not the same everywhere is none that plans can go by.
  std::set<std::string> roles{{}};   // named on either side, and all others
  for (const auto& [role, path] : first.paths) roles.insert(role);
  for (const auto& [role, path] : other.paths) roles.insert(role);
  std::map<std::string, std::string> paths;
  for (const auto& role : roles) {
    auto path = first.path_of(role);
    paths[role] = path == other.path_of(role) ? std::move(path) : std::string(plan::unknown_path);
  }
  first.paths = std::move(paths);
  first.hides_sharded.insert(other.hides_sharded.begin(), other.hides_sharded.end());
  first.namesakes.insert(other.namesakes.begin(), other.namesakes.end());
  std::erase_if(first.safe_functions,
                [&](const auto& name) { return !other.safe_functions.contains(name); });
  std::erase_if(first.immutable_functions,
                [&](const auto& name) { return !other.immutable_functions.contains(name); });
}

}  // namespace pgsled::router
