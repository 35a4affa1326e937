#include "services/router/placement_change.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/placement/change.hpp"

namespace pgsled::router {

namespace {

std::string label(const config::sharded_table& of) {
  const auto& name = of.name.empty() ? of.column : of.name;
  return of.schema.empty() ? name : of.schema + "." + name;
}

// What an operator lists to say that the rows are where this says.
std::string name_of(const config::sharded_table& of) {
  return of.mapping ? fmt::format("{}={:016x}", label(of), of.mapping->id)
                    : fmt::format("{}={}:{}:{}", label(of), of.column, of.data_type,
                                  placement::name_of(of.hasher));
}

std::string difference(const config::sharded_table& before, const config::sharded_table& now) {
  if (before.column != now.column) {
    return fmt::format("its sharding key would be {} instead of {}", now.column, before.column);
  }
  if (before.data_type != now.data_type) {
    return fmt::format("data_type would be {} instead of {}", now.data_type, before.data_type);
  }
  if (before.mapping.has_value() != now.mapping.has_value()) {
    return now.mapping ? "it would be placed by list or range instead of by hash"
                       : "it would be placed by hash instead of by list or range";
  }
  if (!before.mapping && before.hasher != now.hasher) {
    return fmt::format("hasher would be {} instead of {}", placement::name_of(now.hasher),
                       placement::name_of(before.hasher));
  }
  if (!before.mapping) return {};
  const auto moved = placement::first_moved(*before.mapping, *now.mapping);
  if (!moved) return {};
  if (!moved->to) {
    return fmt::format("rows with {} = {} are on shard {} and would have no place", now.column,
                       moved->value, moved->from);
  }
  return fmt::format("rows with {} = {} are on shard {} and would be looked for on shard {}",
                     now.column, moved->value, moved->from, *moved->to);
}

}  // namespace

std::optional<pg_error> placement_change(const config::configuration& before,
                                         const config::configuration& now) {
  const auto& by_hand = now.resharding.placed_by_hand;
  for (const config::sharded_table& one : before.sharded_tables) {
    if (!one.acted_on) continue;
    for (const config::sharded_table& next : now.sharded_tables) {
      // An entry without a table's name is known by its column.
      if (next.database != one.database || next.schema != one.schema || next.name != one.name ||
          (one.name.empty() && next.column != one.column) || !next.acted_on) {
        continue;
      }
      const auto why = difference(one, next);
      const auto name = name_of(next);
      if (why.empty() || std::find(by_hand.begin(), by_hand.end(), name) != by_hand.end()) continue;
      return pg_error{"55000", fmt::format("database \"{}\", table {}: {}", one.database,
                                           label(next), why),
                      fmt::format("Nothing moves rows placed by list or range. If they are where "
                                  "the file says already, or there are none, add \"{}\" to "
                                  "placed_by_hand in [resharding].", name), {}};
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::router
