#include "services/replicator/move_sequences.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::int64_t residues = 1024;   // as the frontend makes sequences of sharded tables

// The fourth: whether it belongs to a column.
constexpr const char* query =
    "SELECT s.schemaname, s.sequencename, coalesce(s.last_value, s.start_value - s.increment_by), "
    "s.increment_by, EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND "
    "d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass AND d.refclassid = "
    "'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')) "
    "FROM pg_sequences s WHERE s.schemaname <> 'pgsled' ORDER BY 1, 2";

// A shard that owns rows gives values out all the time, so it is locked against that for a moment;
// and values of a residue of its own meet no other's there.
trouble carry(management::connection& link, const std::vector<std::string>& row,
              std::int64_t highest, const sequence_manner& how) {
  const auto name = moving::quoted(row[0]) + "." + moving::quoted(row[1]);
  const auto last = static_cast<std::int64_t>(std::stoll(row[2]));
  std::int64_t step = std::stoll(row[3]);
  if (how.in_use) {
    if (step == residues || highest < last) return std::nullopt;
    return execute(link, fmt::format(
        "SET LOCAL lock_timeout = '500ms'; ALTER SEQUENCE {0} INCREMENT BY {2}; "
        "SELECT setval({1}, {3}, false) FROM {0} WHERE last_value < {3}",
        name, literal(name), step, highest + 1));
  }
  std::int64_t next = std::max(highest, last) + 1;
  std::string sql;
  if (how.spread && step == 1 && row[4] == "t") {
    step = residues;
    sql = fmt::format("ALTER SEQUENCE {} INCREMENT BY {}; ", name, step);
  }
  if (step == residues) {
    const std::int64_t first = std::int64_t{how.shard} + 1;
    next = next <= first ? first : first + (next - first + step - 1) / step * step;
    sql += fmt::format("ALTER SEQUENCE {} START WITH {}; ", name, first);
  }
  return execute(link, sql + fmt::format("SELECT setval({}, {}, false)", literal(name), next));
}

}  // namespace

trouble read_sequences(management::connection& link, sequence_values& highest) {
  const auto rows = link.query(query);
  if (!rows) return rows.error();
  for (const auto& row : *rows) {
    const auto value = static_cast<std::int64_t>(std::stoll(row[2]));
    auto& to = highest.try_emplace({row[0], row[1]}, value).first->second;
    to = std::max(to, value);
  }
  return std::nullopt;
}

trouble carry_sequences(management::connection& link, const sequence_values& highest,
                        const sequence_manner& how) {
  const auto rows = link.query(query);
  if (!rows) return rows.error();
  for (const auto& row : *rows) {
    const auto found = highest.find({row[0], row[1]});
    if (found == highest.end() || std::stoll(row[3]) <= 0) continue;
    if (auto error = carry(link, row, found->second, how)) return error;
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
