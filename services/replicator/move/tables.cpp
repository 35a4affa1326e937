#include "services/replicator/move/tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/placement/rule.hpp"
#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

namespace {

constexpr char separator = '\x1f';

template <class Integer>
Integer number(const std::string& text) {
  Integer value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

constexpr const char* tables_query = R"sql(
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence,
  c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid
                              OR i.inhrelid = c.oid AND NOT c.relispartition),
  (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('A', 'R'))
  + (SELECT count(*) FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('A', 'R')),
  coalesce((SELECT string_agg(a.attname, U&'\001f' ORDER BY k.place)
    FROM pg_index x, unnest(x.indkey::int2[]) WITH ORDINALITY k (number, place), pg_attribute a
    WHERE x.indrelid = c.oid AND x.indisprimary AND x.indisvalid AND x.indimmediate
      AND a.attrelid = c.oid
      AND a.attnum = k.number AND k.place <= x.indnkeyatts), ''),
  top.nspname, top.relname, coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
  CASE WHEN pg_has_role(c.relowner, 'USAGE') THEN ''
       ELSE quote_ident(pg_get_userbyid(c.relowner)) END,
  c.relforcerowsecurity AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles
                                 WHERE rolname = current_user),
  coalesce(pg_relation_filenode(c.oid), 0), c.relreplident
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT rn.nspname, r.relname FROM pg_class r
  JOIN pg_namespace rn ON rn.oid = r.relnamespace
  WHERE c.relispartition AND r.oid = pg_partition_root(c.oid)) top ON true
WHERE (c.relkind IN ('r', 'p') OR c.relkind = 'f' AND c.relispartition)
  AND n.nspname NOT IN ('information_schema', 'pgsled')
  AND n.nspname NOT LIKE 'pg\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2, 3)sql";

constexpr const char* columns_query = R"sql(
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod,
  a.attidentity, a.attgenerated, a.attnotnull, coalesce(l.collisdeterministic, true)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname NOT IN ('information_schema', 'pgsled') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY a.attrelid, a.attnum)sql";

constexpr const char* digest_query = R"sql(
SELECT format('%I.digest', n.nspname) FROM pg_extension e JOIN pg_namespace n
ON n.oid = e.extnamespace WHERE e.extname = 'pgcrypto')sql";

}  // namespace

bool by_sha1(const snapshot::move_table& rule) {
  return !rule.by_mapping && rule.hasher == placement::name_of(placement::hasher::sha1);
}

result<std::string> digest_of(management::connection& link) {
  return one_value(link, digest_query);
}

moving::placing placing_of(const snapshot::move_table& rule, const std::string& digest) {
  moving::placing to;
  to.type = placement::key_type_of(rule.data_type).value_or(to.type);
  if (rule.by_mapping && !rule.mapping.empty()) {
    to.mapping = rule.mapping.front();
    return to;
  }
  to.hasher = placement::hasher_of(rule.hasher).value_or(to.hasher);
  if (to.hasher == placement::hasher::sha1) to.digest = digest;
  return to;
}

bool holds_keys(std::string_view column, placement::key_type type) {
  const auto is = [&](auto... known) { return (column.starts_with(known) || ...); };
  switch (type) {
    case placement::key_type::bigint: return is("bigint", "integer", "smallint");
    case placement::key_type::uuid: return is("uuid");
    case placement::key_type::varchar: break;
  }
  return is("text", "character varying");
}

std::vector<std::string> split_names(std::string_view text) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  for (std::size_t from = 0;;) {
    const auto end = text.find(separator, from);
    parts.emplace_back(text.substr(from, end - from));
    if (end == std::string_view::npos) return parts;
    from = end + 1;
  }
}

bool is_generated(const found_table& of, const std::string& column) {
  return std::find(of.generated.begin(), of.generated.end(), column) != of.generated.end();
}

const snapshot::move_table* rule_of(const found_table& of,
                                    const std::vector<snapshot::move_table>& rules) {
  const auto has = [&](const std::string& column) {
    return std::any_of(of.it.columns.begin(), of.it.columns.end(),
                       [&](const auto& one) { return one.name == column; }) ||
           is_generated(of, column);
  };
  // Partitions are placed as the table is that they are of.
  const bool part = !of.top_name.empty();
  const auto& schema = part ? of.top_schema : of.it.schema;
  const auto& name = part ? of.top_name : of.it.name;
  for (const auto& one : rules) {
    if (!one.schema.empty() && one.schema != schema) continue;
    if (!one.name.empty() && one.name != name) continue;
    if (has(one.column)) return &one;
  }
  return nullptr;
}

result<found_tables> read_tables(management::connection& link,
                                 const std::vector<snapshot::move_table>& rules) {
  const auto tables = link.again(tables_query);
  if (!tables) return tl::unexpected(tables.error());
  const auto columns = link.again(columns_query);
  if (!columns) return tl::unexpected(columns.error());
  std::map<std::string_view, std::vector<const std::vector<std::string>*>> columns_of;
  for (const auto& row : *columns) columns_of[row[0]].push_back(&row);
  const auto digest = std::any_of(rules.begin(), rules.end(), by_sha1)
                          ? digest_of(link) : result<std::string>(std::string());
  if (!digest) return tl::unexpected(digest.error());
  std::map<std::string, found_table> by_oid;
  for (const auto& row : *tables) {
    found_table& one = by_oid[row[0]];
    one.oid = row[0];
    one.it.schema = row[1];
    one.it.name = row[2];
    one.kind = row[3];
    one.persistence = row[4];
    one.inherits = row[5] == "t";
    one.always = row[6] != "0";
    one.top_schema = row[8];
    one.top_name = row[9];
    if (!row[9].empty()) one.shape = fmt::format("{}.{} {};", row[8], row[9], row[10]);
    one.owner = row[11];
    one.secured = row[12] == "t";
    one.file = row[13];
    one.identity = row[14];
    for (const auto* of_it : columns_of[row[0]]) {
      const auto& column = *of_it;
      one.shape += fmt::format("{} {} {}{} {};", column[1], column[2], column[5], column[6],
                               column[7]);
      if (!column[6].empty()) {           // generated: each side computes it
        one.computes = true;
        one.generated.push_back(column[1]);
        continue;
      }
      one.it.columns.push_back({column[1], column[2], number<std::uint32_t>(column[3]),
                                number<std::int32_t>(column[4]), column[5] == "a"});
    }
    const auto place = [&](const std::string& name) {
      for (std::size_t i = 0; i < one.it.columns.size(); ++i) {
        if (one.it.columns[i].name == name) return i;
      }
      return moving::table::none;
    };
    for (const auto& name : split_names(row[7])) one.it.primary.push_back(place(name));
    // A generated column is not in the log: rows are found in another way.
    const auto& primary = one.it.primary;
    if (std::find(primary.begin(), primary.end(), moving::table::none) != primary.end()) {
      one.it.primary.clear();
    }
    if (const auto* rule = rule_of(one, rules)) {
      one.it.key = place(rule->column);
      one.it.by = placing_of(*rule, *digest);
      for (const auto* column : columns_of[row[0]]) {
        if ((*column)[1] == rule->column) one.key_deterministic = (*column)[8] == "t";
      }
    }
  }
  found_tables to;
  for (auto& [oid, one] : by_oid) {
    const auto label = one.it.label();
    if (!to.emplace(label, std::move(one)).second) {   // "a.b".c and a."b.c"
      return failure("0A000", fmt::format("two tables are called {}, which this version cannot "
                                          "tell apart", label));
    }
  }
  return to;
}

}  // namespace pgsled::replicator
