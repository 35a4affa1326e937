#include "services/replicator/move/sequences.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/commit/statements.hpp"
#include "common/management/together.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::int64_t residues = 1024;   // as the frontend makes sequences of sharded tables

// The fifth: whether it belongs to a column. The last: whether it has room for values of each shard.
constexpr const char* query =
    "SELECT s.schemaname, s.sequencename, coalesce(s.last_value, s.start_value - s.increment_by), "
    "s.increment_by, EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND "
    "d.objid = format('%I.%I', s.schemaname, s.sequencename)::regclass AND d.refclassid = "
    "'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')), "
    "s.start_value, NOT s.cycle AND (s.max_value - coalesce(s.last_value, s.start_value)) / "
    "(s.increment_by * 1024.0) > 1000 "
    "FROM pg_sequences s WHERE s.schemaname <> 'pgsled' ORDER BY 1, 2";

// A shard that owns rows gives values out all the time, so it is locked against that for a moment;
// and values of a residue of its own meet no other's there.
std::string carrying(const std::vector<std::string>& row, const sequence_value& found,
                     const sequence_manner& how) {
  const auto name = moving::quoted(row[0]) + "." + moving::quoted(row[1]);
  const auto last = static_cast<std::int64_t>(std::stoll(row[2]));
  const auto highest = found.highest;
  std::int64_t step = std::stoll(row[3]);
  // The first of its own values from `next` on. Where `first` is, a START says.
  const auto own_from = [&step](std::int64_t next, std::int64_t first) {
    return next <= first ? first : first + (next - first + step - 1) / step * step;
  };
  if (how.in_use) {
    // Also with values of its own: the shard that has gone highest may be emptied for good, and a
    // new one with its number begins behind those that are left.
    if (highest < last) return {};
    const auto next = step % residues == 0 ? own_from(highest + 1, std::stoll(row[5]))
                                           : highest + 1;
    return fmt::format("ALTER SEQUENCE {0} INCREMENT BY {2}; "
                       "SELECT setval({1}, {3}, false) FROM {0} WHERE last_value < {3}; ",
                       name, literal(name), step, next);
  }
  std::int64_t next = std::max(highest, last) + 1;
  std::string sql;
  // One that nobody owns may be a column's all the same, by its DEFAULT.
  if (how.spread && step % residues != 0 && ((step == 1 && row[4] == "t") || row[6] == "t")) {
    step *= residues;
    sql = fmt::format("ALTER SEQUENCE {} INCREMENT BY {}; ", name, step);
  }
  if (step % residues == 0) {
    const std::int64_t first = found.base + std::int64_t{how.shard} * (step / residues);
    next = own_from(next, first);
    sql += fmt::format("ALTER SEQUENCE {} START WITH {}; ", name, first);
  }
  return sql + fmt::format("SELECT setval({}, {}, false); ", literal(name), next);
}

trouble read_one(management::connection& link, shard_number shard, sequence_values& found) {
  const auto rows = link.again(query);
  if (!rows) return rows.error();
  for (const auto& row : *rows) {
    const std::int64_t value = std::stoll(row[2]), step = std::stoll(row[3]);
    sequence_value one{value, std::stoll(row[5])};
    if (step % residues == 0) one.base -= std::int64_t{shard} * (step / residues);
    found[{row[0], row[1]}] = one;
  }
  return std::nullopt;
}

}  // namespace

result<sequence_values> read_sequences(const std::vector<sequence_source>& sources) {
  std::vector<sequence_values> read(sources.size());
  if (auto error = management::together(sources.size(), [&](std::size_t i) {
        return read_one(*sources[i].second, sources[i].first, read[i]);
      })) {
    return tl::unexpected(std::move(*error));
  }
  sequence_values all;
  for (const auto& of_one : read) {
    for (const auto& [name, one] : of_one) {
      auto& to = all.try_emplace(name, one).first->second;
      to.highest = std::max(to.highest, one.highest);
    }
  }
  return all;
}

trouble carry_sequences(management::connection& link, const sequence_values& values,
                        const sequence_manner& how) {
  const auto rows = link.again(query);
  if (!rows) return rows.error();
  std::string all;   // in one transaction: clients are held back meanwhile
  for (const auto& row : *rows) {
    const auto found = values.find({row[0], row[1]});
    if (found == values.end() || std::stoll(row[3]) <= 0) continue;
    all += carrying(row, found->second, how);
  }
  if (all.empty()) return std::nullopt;
  return execute(link, (how.in_use ? "SET LOCAL lock_timeout = '500ms'; " : "") + all);
}

}  // namespace pgsled::replicator
