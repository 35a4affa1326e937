#include "services/replicator/move/pieces.hpp"

#include <fmt/format.h>

#include <vector>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::int64_t blocks_at_once = 256;
constexpr std::string_view all_rows = "true";

using filled_tables = std::vector<std::pair<std::string, std::string>>;

// Those that go whole, together, since they may refer to each other. Where it cannot be done (a table
// that stays refers to one of them) they are emptied in pieces.
void truncate(management::connection& link, const move_scene& scene, const filled_tables& tables) {
  std::string all;
  for (const auto& [table, rows] : tables) {
    if (rows != all_rows) continue;
    const auto there = one_value(link, fmt::format("SELECT to_regclass({})", literal(table)));
    if (!there || there->empty()) continue;
    all += (all.empty() ? "ONLY " : ", ONLY ") + table;
  }
  if (!all.empty()) static_cast<void>(execute(link, hold_job(scene) + "; TRUNCATE " + all));
}

}  // namespace

trouble delete_in_pieces(management::connection& link, const move_scene& scene,
                         const std::string& table, const std::string& rows,
                         const std::function<trouble()>& before) {
  while (true) {
    const auto blocks = one_value(link, fmt::format(
        "SELECT pg_relation_size(to_regclass({})) / current_setting('block_size')::bigint",
        literal(table)));
    if (!blocks) return blocks.error();
    if (blocks->empty()) return std::nullopt;
    const std::int64_t end = std::stoll(*blocks);
    std::int64_t gone = 0;
    for (std::int64_t from = 0; from < end; from += blocks_at_once) {
      if (auto error = before()) return error;
      const auto touched = link.run(fmt::format(
          "{}; DELETE FROM ONLY {} WHERE ctid >= '({},0)' AND ctid < '({},0)' AND {}",
          hold_job(scene), table, from, from + blocks_at_once, rows));
      if (!touched) return touched.error();
      gone += touched->back();
    }
    if (gone == 0) return std::nullopt;
  }
}

trouble delete_filled(management::connection& link, const move_scene& scene,
                      const std::function<trouble()>& before) {
  const auto filled = link.query(fmt::format("SELECT unnest(filled) FROM pgsled.job WHERE id = {}",
                                             literal(scene.job)));
  if (!filled) return filled.error();
  if (filled->empty()) return std::nullopt;
  if (auto error = execute(link, "SET session_replication_role = replica")) return error;
  filled_tables tables;
  for (const auto& row : *filled) tables.push_back(filled_table(row[0]));
  truncate(link, scene, tables);
  for (const auto& [table, rows] : tables) {
    if (auto error = delete_in_pieces(link, scene, table, rows, before)) return error;
  }
  return execute(link, fmt::format(
      "RESET session_replication_role; {}; UPDATE pgsled.job SET filled = '{{}}' WHERE id = {}",
      hold_job(scene), literal(scene.job)));
}

std::pair<std::string, std::string> filled_table(std::string_view entry) {
  constexpr std::string_view where = " WHERE ";
  bool quoted = false;
  for (std::size_t i = 0; i < entry.size(); ++i) {
    quoted = quoted != (entry[i] == '"');
    if (quoted || !entry.substr(i).starts_with(where)) continue;
    return {std::string(entry.substr(0, i)), std::string(entry.substr(i + where.size()))};
  }
  return {std::string(entry), std::string(all_rows)};
}

}  // namespace pgsled::replicator
