#include "services/replicator/move/sizes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace pgsled::replicator {

result<std::vector<coming_rows>> what_comes(move_scene& scene) {
  std::map<std::string, std::pair<double, double>> by_table;   // rows, bytes
  for (const auto& [source, tables] : scene.tables) {
    if (tables.empty()) continue;
    std::string ask;
    for (const auto& one : tables) {
      ask += fmt::format("{}({}, {}::regclass)", ask.empty() ? "" : ", ", &one - tables.data(),
                         scene.link(source).literal(moving::in_sql(one)));
    }
    const auto rows = scene.link(source).query(fmt::format(
        "SELECT place, CASE WHEN reltuples < 0 THEN pg_relation_size(c.oid) / 100 ELSE reltuples "
        "END::bigint, pg_total_relation_size(c.oid) FROM (VALUES {}) v (place, t) "
        "JOIN pg_class c ON c.oid = t", ask));
    if (!rows) return tl::unexpected(rows.error());
    const auto owned = std::count(scene.map.begin(), scene.map.end(), source);
    const auto part = owned == 0 ? 1.0
                                 : static_cast<double>(scene.of_source(source).moving.size()) /
                                       static_cast<double>(owned);
    for (const auto& row : *rows) {
      const auto& one = tables.at(std::stoull(row[0]));
      const double here = one.whole() ? 1.0 : part;
      auto& [count, bytes] = by_table[one.label()];
      count += here * static_cast<double>(std::stoll(row[1]));
      bytes += here * static_cast<double>(std::stoll(row[2]));
    }
  }
  std::vector<coming_rows> all;
  for (const auto& [label, sizes] : by_table) {
    all.push_back({label, static_cast<std::int64_t>(sizes.first),
                   static_cast<std::int64_t>(sizes.second)});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return all;
}

}  // namespace pgsled::replicator
