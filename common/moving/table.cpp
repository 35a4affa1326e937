#include "common/moving/table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace pgsled::moving {

bool table::key_in_primary() const {
  return !whole() && std::find(primary.begin(), primary.end(), key) != primary.end();
}

std::string quoted(std::string_view identifier) {
  std::string made = "\"";
  for (const char c : identifier) {
    if (c == '"') made += c;
    made += c;
  }
  return made + '"';
}

std::string in_sql(const table& of) { return quoted(of.schema) + "." + quoted(of.name); }

std::string column_list(const table& of) {
  std::string list;
  for (const table_column& one : of.columns) {
    if (!list.empty()) list += ", ";
    list += quoted(one.name);
  }
  return list;
}

std::string bucket_in_sql(placement::key_type type, const std::string& expression,
                          std::size_t buckets) {
  // The seed is HASH_PARTITION_SEED, the summand what hash_combine64 adds to the hash of the
  // first column; numeric because neither unsigned nor wrapping integers are there.
  constexpr const char* seed = "8816678312871386365";
  std::string hash;
  switch (type) {
    case placement::key_type::bigint:
      hash = fmt::format("hashint8extended(({})::bigint, {})", expression, seed);
      break;
    case placement::key_type::uuid:
      hash = fmt::format("uuid_hash_extended({}, {})", expression, seed);
      break;
    case placement::key_type::varchar:
      hash = fmt::format("hashtextextended(({})::text COLLATE \"C\", {})", expression, seed);
      break;
  }
  return fmt::format("mod(mod({}::numeric + 18446744073709551616 + 5305509591434766563, "
                     "18446744073709551616), {})::integer", hash, buckets);
}

std::string where_moving(const table& of, const selection& rows) {
  if (of.whole()) return "true";
  return fmt::format("{} = ANY ('{{{}}}'::integer[])",
                     bucket_in_sql(of.type, quoted(of.columns[of.key].name), rows.buckets),
                     fmt::join(rows.moving, ","));
}

std::string copy_out(const table& of, const selection& rows) {
  return fmt::format("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT", column_list(of),
                     in_sql(of), where_moving(of, rows));
}

std::string copy_in(const table& of) {
  return fmt::format("COPY {} ({}) FROM STDIN", in_sql(of), column_list(of));
}

std::string checksum(const table& of, const selection& rows, std::span<const std::string> among) {
  std::string some;
  for (const std::string& one : among) some += (some.empty() ? " AND ((" : ") OR (") + one;
  if (!some.empty()) some += "))";
  return fmt::format("SELECT count(*), coalesce(sum(hashtextextended(ROW({})::text COLLATE \"C\", "
                     "0)::numeric), 0) FROM ONLY {} WHERE {}{}",
                     column_list(of), in_sql(of), where_moving(of, rows), some);
}

}  // namespace pgsled::moving
