#include "services/router/control/placement_change.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/placement/change.hpp"

namespace pgsled::router {

namespace {

std::string label(const snapshot::placed_table& of) {
  const auto& name = of.name.empty() ? of.column : of.name;
  return of.schema.empty() ? name : of.schema + "." + name;
}

// What an operator lists to say that the rows are where this says.
std::string name_of(const snapshot::placed_table& of) {
  return of.mapping.empty() ? fmt::format("{}={}:{}:{}", label(of), of.column, of.data_type,
                                          of.hasher)
                            : fmt::format("{}={:016x}", label(of), placement::id_of(of.mapping[0]));
}

std::string difference(const snapshot::placed_table& before, const snapshot::placed_table& now) {
  if (before.column != now.column) {
    return fmt::format("its sharding key would be {} instead of {}", now.column, before.column);
  }
  if (before.data_type != now.data_type) {
    return fmt::format("data_type would be {} instead of {}", now.data_type, before.data_type);
  }
  if (before.mapping.empty() != now.mapping.empty()) {
    return now.mapping.empty() ? "it would be placed by hash instead of by list or range"
                               : "it would be placed by list or range instead of by hash";
  }
  if (before.mapping.empty()) {
    if (before.hasher == now.hasher) return {};
    return fmt::format("hasher would be {} instead of {}", now.hasher, before.hasher);
  }
  const auto moved = placement::first_moved(before.mapping[0], now.mapping[0]);
  if (!moved) return {};
  if (!moved->to) {
    return fmt::format("rows with {} = {} are on shard {} and would have no place", now.column,
                       moved->value, moved->from);
  }
  return fmt::format("rows with {} = {} are on shard {} and would be looked for on shard {}",
                     now.column, moved->value, moved->from, *moved->to);
}

}  // namespace

std::vector<snapshot::placed_table> placed_tables(const config::configuration& config,
                                                  const std::string& database) {
  std::vector<snapshot::placed_table> made;
  for (const config::sharded_table& one : config.sharded_tables) {
    if (one.database != database || !one.acted_on) continue;
    made.push_back({one.schema, one.name, one.column, one.data_type,
                    std::string(placement::name_of(one.hasher)), {}});
    if (one.mapping) made.back().mapping.push_back(*one.mapping);
  }
  return made;
}

// One without a table's name is known by its column.
std::string entry_of(const snapshot::placed_table& of) {
  return of.schema + "." + of.name + (of.name.empty() ? "." + of.column : std::string());
}

std::optional<pg_error> placement_change(const std::string& database,
                                         const std::vector<snapshot::placed_table>& before,
                                         const std::vector<snapshot::placed_table>& now,
                                         const std::vector<std::string>& by_hand) {
  for (const snapshot::placed_table& one : before) {
    for (const snapshot::placed_table& next : now) {
      if (entry_of(one) != entry_of(next)) continue;
      const auto why = difference(one, next);
      const auto name = name_of(next);
      if (why.empty() || std::find(by_hand.begin(), by_hand.end(), name) != by_hand.end()) continue;
      return pg_error{"55000", fmt::format("database \"{}\", table {}: {}", database, label(next),
                                           why),
                      fmt::format("Nothing moves rows placed by list or range between shards. If "
                                  "they are where the file says already, or there are none, add "
                                  "\"{}\" to placed_by_hand in [resharding].", name), {}};
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::router
