#include "common/moving/table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>

#include "common/base/result.hpp"
#include "common/commit/statements.hpp"

namespace pgsled::moving {

using commit::statements::literal;

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

std::string in_sql(const table& of) {
  return moving::quoted(of.schema) + "." + moving::quoted(of.name);
}

std::string column_list(const table& of) {
  std::string list;
  for (const table_column& one : of.columns) {
    if (!list.empty()) list += ", ";
    list += moving::quoted(one.name);
  }
  return list;
}

namespace {

// The last four bytes of the digest, as a number without sign.
std::string sha1_bucket_in_sql(placement::key_type type, const std::string& expression,
                               std::size_t buckets, const std::string& digest) {
  std::string bytes;
  switch (type) {
    case placement::key_type::bigint:
      bytes = fmt::format("convert_to(({})::bigint::text, 'UTF8')", expression);
      break;
    case placement::key_type::uuid: bytes = fmt::format("uuid_send({})", expression); break;
    case placement::key_type::varchar:
      bytes = fmt::format("convert_to(({})::text, 'UTF8')", expression);
      break;
  }
  return fmt::format("(('x' || encode(substr({}({}, 'sha1'), 17, 4), 'hex'))::bit(32)::bigint % {})"
                     "::integer", digest, bytes, buckets);
}

// What hash_combine64 adds to the hash of the first column.
constexpr std::uint64_t combined = 0x49a0'f4dd'15e5'a8e3;

// A bigint with the bits of the hash.
std::string hash_in_sql(placement::key_type type, const std::string& expression) {
  constexpr const char* seed = "8816678312871386365";   // HASH_PARTITION_SEED
  switch (type) {
    case placement::key_type::bigint:
      return fmt::format("hashint8extended(({})::bigint, {})", expression, seed);
    case placement::key_type::uuid:
      return fmt::format("uuid_hash_extended({}, {})", expression, seed);
    case placement::key_type::varchar: break;
  }
  return fmt::format("hashtextextended(({})::text COLLATE \"C\", {})", expression, seed);
}

// `expression` and what it is compared with, as placement::mapping_index compares them.
std::string compared(placement::key_type type, const std::string& expression) {
  switch (type) {
    case placement::key_type::bigint: return fmt::format("({})::bigint", expression);
    case placement::key_type::uuid: return fmt::format("({})::uuid", expression);
    case placement::key_type::varchar: break;
  }
  return fmt::format("({})::text COLLATE \"C\"", expression);
}

// The shard of `expression`; NULL: none.
std::string shard_in_sql(placement::key_type type, const std::string& expression,
                         const placement::mapping& by) {
  const auto key = compared(type, expression);
  const auto value = [&](const std::string& text) { return compared(type, literal(text)); };
  std::map<std::uint32_t, std::string> listed;
  for (const auto& [text, shard] : by.list) {
    auto& values = listed[shard];
    values += (values.empty() ? "" : ", ") + value(text);
  }
  std::string sql = fmt::format("CASE WHEN {} IS NULL THEN NULL::integer", expression);
  for (const auto& [shard, values] : listed) {
    sql += fmt::format(" WHEN {} IN ({}) THEN {}", key, values, shard);
  }
  for (const auto& one : by.ranges) {
    sql += fmt::format(" WHEN {} AND {} THEN {}",
                       one.has_start ? key + " >= " + value(one.start) : "true",
                       one.has_end ? key + " < " + value(one.end) : "true", one.shard);
  }
  return fmt::format("{} ELSE {} END", sql,
                     by.fallback >= 0 ? std::to_string(by.fallback) : "NULL");
}

}  // namespace

std::string bucket_in_sql(const placing& by, const std::string& expression, std::size_t buckets) {
  if (by.hasher == placement::hasher::sha1) {
    return sha1_bucket_in_sql(by.type, expression, buckets, by.digest);
  }
  const auto hash = hash_in_sql(by.type, expression);
  // hash + `combined` in 64 bits that wrap, without sign, modulo `buckets`: by halves, because
  // there is no such integer, and numeric would cost more than the rest of a copy.
  constexpr std::uint64_t half = 0xffff'ffff, high = combined >> 32, low = combined & half;
  const auto low_sum = fmt::format("(({} & {}) + {})", hash, half, low);
  const auto high_sum = fmt::format("((({} >> 32) + {} + ({} >> 32)) & {})", hash, high, low_sum,
                                    half);
  return fmt::format("((({} % {}) * {} + ({} & {})) % {})::integer", high_sum, buckets,
                     (half + 1) % buckets, low_sum, half, buckets);
}

std::string moves_in_sql(const placing& by, const std::string& expression, const selection& rows) {
  if (by.mapping) {
    return fmt::format("({}) = {}", shard_in_sql(by.type, expression, *by.mapping), rows.shard);
  }
  const std::uint64_t buckets = rows.buckets;
  const auto& moving = rows.moving;
  PGSLED_ASSERT(buckets > 0);
  const bool each_once = std::adjacent_find(moving.begin(), moving.end(),
                                            std::greater_equal<>()) == moving.end();
  if (moving.size() == buckets && each_once) return expression + " IS NOT NULL";
  if (by.hasher == placement::hasher::sha1) {
    return fmt::format("{} = ANY ('{{{}}}'::integer[])", bucket_in_sql(by, expression, buckets),
                       fmt::join(moving, ","));
  }
  // Not `combined` is added to each hash, but taken from the buckets that are looked for.
  const auto hash = hash_in_sql(by.type, expression);
  std::vector<std::int64_t> wanted;
  for (const std::uint64_t bucket : moving) {
    wanted.push_back(static_cast<std::int64_t>((bucket + buckets - combined % buckets) % buckets));
  }
  if (std::has_single_bit(buckets)) {
    return fmt::format("({} & {}) = ANY ('{{{}}}'::bigint[])", hash, buckets - 1,
                       fmt::join(wanted, ","));
  }
  // A remainder has the sign of the hash, so that each bucket has two. A sum that is negative lacks
  // the 2^64 that it has without sign.
  for (std::size_t i = 0, all = wanted.size(); i < all; ++i) {
    if (wanted[i] > 0) wanted.push_back(wanted[i] - static_cast<std::int64_t>(buckets));
  }
  const auto more = (std::numeric_limits<std::uint64_t>::max() % buckets + 1) % buckets;
  return fmt::format("({0} % {1} + CASE WHEN {0} < -{2} THEN {3} ELSE 0 END) = "
                     "ANY ('{{{4}}}'::bigint[])", hash, buckets, combined, more,
                     fmt::join(wanted, ","));
}

std::string where_moving(const table& of, const selection& rows) {
  if (of.whole()) return "true";
  return moves_in_sql(of.by, moving::quoted(of.columns[of.key].name), rows);
}

std::optional<std::string> where_unplaced(const table& of) {
  if (of.whole()) return std::nullopt;
  const auto key = moving::quoted(of.columns[of.key].name);
  if (of.by.mapping && of.by.mapping->fallback < 0) {
    return fmt::format("({}) IS NULL", shard_in_sql(of.by.type, key, *of.by.mapping));
  }
  if (of.key_in_primary()) return std::nullopt;
  return key + " IS NULL";
}

std::string truncated(const table& of, const selection& rows) {
  auto sql = fmt::format("DELETE FROM ONLY {} WHERE {}", in_sql(of), where_moving(of, rows));
  if (!of.home) return sql;
  // With its namespace: of a std::string, <iomanip> has one, too.
  const auto key = moving::quoted(of.columns[of.home->key].name);
  return sql + " AND " + moves_in_sql(of.home->by, key, of.home->own);
}

bool has_binary_form(const table& of) {
  // bool bytea char name int8 int2 int4 text oid json point float4 float8 money macaddr inet cidr
  // bpchar varchar date time timestamp timestamptz interval timetz bit varbit numeric uuid pg_lsn
  // jsonb, and arrays of most of them: numbers that are part of PostgreSQL's protocol.
  static constexpr std::array<std::uint32_t, 51> known{
      16,   17,   18,   19,   20,   21,   23,   25,   26,   114,  600,  700,  701,
      790,  829,  869,  650,  1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560,
      1562, 1700, 2950, 3220, 3802, 199,  1000, 1001, 1005, 1007, 1009, 1014, 1015,
      1016, 1021, 1022, 1028, 1115, 1182, 1183, 1185, 1187, 1231, 2951, 3807};
  return std::all_of(of.columns.begin(), of.columns.end(), [](const table_column& one) {
    return std::find(known.begin(), known.end(), one.type_number) != known.end();
  });
}

std::string copy_out(const table& of, const selection& rows, bool binary,
                     const block_range& blocks) {
  std::string among;
  if (blocks.from > 0) among += fmt::format(" AND ctid >= '({},0)'::tid", blocks.from);
  if (blocks.to) among += fmt::format(" AND ctid < '({},0)'::tid", *blocks.to);
  return fmt::format("COPY (SELECT {} FROM ONLY {} WHERE {}{}) TO STDOUT{}", column_list(of),
                     in_sql(of), where_moving(of, rows), among, binary ? " (FORMAT binary)" : "");
}

std::string copy_in(const table& of, bool binary) {
  return fmt::format("COPY {} ({}) FROM STDIN{}", in_sql(of), column_list(of),
                     binary ? " (FORMAT binary)" : "");
}

std::string checksum(const table& of, const selection& rows, std::span<const std::string> among) {
  std::string some;
  if (of.primary.empty() && !of.whole() && !among.empty()) {
    some = fmt::format(" AND {} IN ({})", moving::quoted(of.columns[of.key].name),
                       fmt::join(among, ","));
  } else {
    for (const std::string& one : among) some += (some.empty() ? " AND ((" : ") OR (") + one;
    if (!some.empty()) some += "))";
  }
  return fmt::format("SELECT count(*), coalesce(sum(hashtextextended(ROW({})::text COLLATE \"C\", "
                     "0)::numeric), 0) FROM ONLY {} WHERE {}{}",
                     column_list(of), in_sql(of), where_moving(of, rows), some);
}

}  // namespace pgsled::moving
