#include "services/router/shards/catalog.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <thread>

#include "services/router/shards/catalog_merge.hpp"

namespace pgsled::router {

namespace {

constexpr std::chrono::milliseconds connect_timeout{3000};
// Of shards whose catalogs are compared with the first one's.
constexpr std::chrono::milliseconds comparison_timeout{1000};
constexpr std::size_t most_at_once = 4;

// Rows of VALUES: schema, name and column of each, as the file has them.
std::string values_of(const management::connection& link,
                      const std::vector<plan::sharded_table>& tables) {
  std::string values;
  for (const plan::sharded_table& table : tables) {
    if (!values.empty()) values += ", ";
    values += fmt::format("({}, {}, {})", link.literal(table.schema), link.literal(table.name),
                          link.literal(table.column));
  }
  return values;
}

// Tables the file names, or any with the column when it names none, or a whole schema when it
// names neither; system schemas left out.
std::string tables_query(const management::connection& link,
                         const std::vector<plan::sharded_table>& tables) {
  const auto values = values_of(link, tables);
  return fmt::format(R"sql(
SELECT DISTINCT c.oid, n.nspname, c.relname
FROM (VALUES {}) AS t (schema, name, col)
JOIN pg_class c ON c.relkind IN ('r', 'p') AND (t.name = '' OR c.relname = t.name)
JOIN pg_namespace n ON n.oid = c.relnamespace AND (t.schema = '' OR n.nspname = t.schema)
WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
  AND n.nspname <> 'pgsled'
  AND (t.name <> '' OR t.col = '' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
       AND a.attname = t.col AND a.attnum > 0 AND NOT a.attisdropped))
ORDER BY 2, 3)sql",
                     values);
}

// The columns of a table with the types under all domains, as equality sees them.
std::string columns_query(const std::string& oid) {
  return fmt::format(R"sql(
WITH RECURSIVE base AS (
  SELECT attnum, attname, atttypid AS type, atttypmod AS modifier, attcollation AS collation
  FROM pg_attribute WHERE attrelid = {} AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype,
         CASE WHEN b.modifier < 0 THEN t.typtypmod ELSE b.modifier END, b.collation
  FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.attname,
       CASE WHEN n.nspname = 'pg_catalog' THEN '' ELSE n.nspname || '.' END || t.typname,
       CASE WHEN t.oid = 'varchar'::regtype AND b.modifier >= 4 THEN b.modifier - 4 ELSE 0 END,
       coalesce(c.collisdeterministic, true)
FROM base b JOIN pg_type t ON t.oid = b.type JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_collation c ON c.oid = b.collation
WHERE t.typtype <> 'd' ORDER BY b.attnum)sql",
                     oid);
}

// Of a function p in language l: its body cannot be a query that nobody sees. An aggregate is what the
// functions are that it is made of.
constexpr std::string_view reads_nothing = R"sql((CASE WHEN p.prokind = 'a' THEN NOT EXISTS (
  SELECT FROM pg_aggregate g, LATERAL unnest(ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn,
    g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::oid[]) AS made (of)
  JOIN pg_proc of_it ON of_it.oid = made.of JOIN pg_language spoken ON spoken.oid = of_it.prolang
  WHERE g.aggfnoid = p.oid AND spoken.lanname NOT IN ('c', 'internal'))
  ELSE l.lanname IN ('c', 'internal') END))sql";

// Relations through which the tables `oids` are read or written under another name: views of
// views and so on, partitions and inheritance in both directions. Foreign tables count because
// what they read is not known, views because of a function whose body is not known, too. And with
// "f" the other relations of such a name: without a schema the first in the path is meant.
std::string hiding_query(const std::string& oids) {
  return fmt::format(R"sql(
WITH RECURSIVE unsafe AS (
  SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT {1}
), reached (oid) AS (
  SELECT unnest('{{{0}}}'::oid[])
  UNION
  SELECT c.oid FROM pg_class c WHERE c.relkind = 'f'
  UNION
  SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_proc'::regclass
    AND d.refobjid IN (SELECT oid FROM unsafe)
  UNION
  SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
    JOIN pg_operator o ON o.oid = d.refobjid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_operator'::regclass
    AND o.oprcode IN (SELECT oid FROM unsafe)
  UNION
  SELECT p.polrelid FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  WHERE d.classid = 'pg_policy'::regclass AND (o.oprcode IN (SELECT oid FROM unsafe)
    OR d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM unsafe))
  UNION
  SELECT next.oid FROM reached, LATERAL (
    SELECT r.ev_class AS oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = reached.oid AND r.ev_class <> reached.oid
    UNION ALL
    SELECT p.polrelid FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid
    WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = reached.oid AND p.polrelid <> reached.oid
    UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = reached.oid
    UNION ALL SELECT inhparent FROM pg_inherits WHERE inhrelid = reached.oid
  ) next
)
SELECT n.nspname, c.relname, reached.oid IS NOT NULL
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN reached ON reached.oid = c.oid
WHERE NOT c.oid = ANY ('{{{0}}}'::oid[]) AND CASE WHEN reached.oid IS NOT NULL
  THEN c.relkind IN ('r', 'p', 'v', 'm', 'f')
  ELSE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT LIKE 'pg\_%'
       AND c.relname IN (SELECT named.relname FROM pg_class named
                         JOIN reached r ON r.oid = named.oid) END)sql",
                     oids, reads_nothing);
}

// A name is safe, or immutable, only when every function of that name is: the planner sees names.
// Functions that run a query given as text are built in but read tables.
std::string functions_query() {
  return fmt::format(R"sql(
SELECT p.proname,
  bool_and((n.nspname IN ('pg_catalog', 'information_schema') OR {0})
    AND p.proname !~ '^(query|table|schema|database|cursor)_to_xml' AND p.proname !~ '^dblink'
    AND p.proname NOT IN ('ts_stat', 'ts_rewrite')),
  bool_and(p.provolatile = 'i')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
JOIN pg_namespace n ON n.oid = p.pronamespace
GROUP BY p.proname)sql",
                     reads_nothing);
}

// The sharding keys as they are there: c is the table, n its schema, a the column and t the entry.
std::string key_columns(const management::connection& link,
                        const std::vector<plan::sharded_table>& tables) {
  return fmt::format(R"sql((VALUES {}) AS t (schema, name, col)
JOIN pg_class c ON t.name = '' OR c.relname = t.name
JOIN pg_namespace n ON n.oid = c.relnamespace AND (t.schema = '' OR n.nspname = t.schema)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.col AND a.attnum > 0)sql",
                     values_of(link, tables));
}

// Functions of BEFORE triggers that may give a row another key than its statement says: where it is
// stored was decided before.
std::string key_triggers_query(const management::connection& link,
                               const std::vector<plan::sharded_table>& tables) {
  return fmt::format(R"sql(
SELECT DISTINCT n.nspname || '.' || c.relname || ': trigger ' || g.tgname || ', column ' || t.col
FROM {0}
JOIN pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
  AND g.tgtype & 3 = 3 AND g.tgtype & 20 <> 0
JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'pgsled'
  AND l.lanname NOT IN ('c', 'internal') AND (l.lanname <> 'plpgsql' OR p.prosrc ~*
    ('\mnew\s*:?=|\minto\s+new\M|\mnew\s*\.\s*"?' ||
     regexp_replace(t.col, '(\W)', '\\\1', 'g') || '"?\s*:?=|\minto\M[^;]*\mnew\s*\.\s*"?' ||
     regexp_replace(t.col, '(\W)', '\\\1', 'g')))
ORDER BY 1)sql",
                     key_columns(link, tables));
}

// What other tables' statements would change sharding keys by foreign keys, step by step back from
// the keys: columns (attnum 0: a deletion of the row) that a key follows. Sharding keys themselves
// are left out, which nobody may change.
std::string followed_query(const management::connection& link,
                           const std::vector<plan::sharded_table>& tables) {
  return fmt::format(R"sql(
WITH RECURSIVE keys AS (
  SELECT c.oid AS rel, a.attnum AS att FROM {0}
), followed (rel, att, by) AS (
  SELECT rel, att, NULL::oid FROM keys
  UNION
  SELECT k.confrelid, one.att, coalesce(f.by, k.oid)
  FROM followed f JOIN pg_constraint k ON k.conrelid = f.rel AND k.contype = 'f', LATERAL (
    SELECT pair.other AS att FROM unnest(k.conkey, k.confkey) AS pair (mine, other)
    WHERE f.att = ANY (k.conkey) AND (k.confupdtype IN ('n', 'd')
                                      OR k.confupdtype = 'c' AND pair.mine = f.att)
    UNION ALL
    SELECT 0::smallint WHERE f.att = ANY (k.conkey) AND k.confdeltype IN ('n', 'd')
      AND coalesce(nullif(to_jsonb(k) -> 'confdelsetcols', 'null'), to_jsonb(k.conkey)) @>
          to_jsonb(f.att)
    UNION ALL
    SELECT 0::smallint WHERE f.att = 0 AND k.confdeltype = 'c'
  ) AS one
)
SELECT DISTINCT ON (n.nspname, c.relname, f.att) n.nspname, c.relname, coalesce(a.attname, ''),
  k.conname, child_schema.nspname || '.' || child.relname
FROM followed f JOIN pg_class c ON c.oid = f.rel JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_constraint k ON k.oid = f.by JOIN pg_class child ON child.oid = k.conrelid
JOIN pg_namespace child_schema ON child_schema.oid = child.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = f.rel AND a.attnum = f.att AND f.att > 0
WHERE NOT EXISTS (SELECT FROM keys WHERE keys.rel = f.rel AND keys.att = f.att)
ORDER BY n.nspname, c.relname, f.att, k.conname)sql",
                     key_columns(link, tables));
}

// What connections of a role begin with, the most particular first: the role in this database, the
// role, the database, all roles. One set in the server's own file is not to be seen here.
constexpr const char* paths_query = R"sql(
SELECT DISTINCT ON (role) coalesce(r.rolname, '') AS role,
  substr(one, length('search_path=') + 1)
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS one
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND one LIKE 'search\_path=%'
ORDER BY role, s.setdatabase = 0)sql";

result<plan::catalog> read_one_catalog(const catalog_job& job, std::size_t shard,
                                       std::chrono::milliseconds timeout,
                                       const std::atomic<bool>& stop) {
  auto link = management::connection::open(job.shards[shard], job.tls, timeout, stop);
  if (!link) return tl::unexpected(link.error());
  if (const auto begun = link->query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); !begun) {
    return tl::unexpected(begun.error());
  }
  plan::catalog made;
  std::string oids;
  if (!job.tables.empty()) {
    const auto tables = link->query(tables_query(*link, job.tables));
    if (!tables) return tl::unexpected(tables.error());
    for (const auto& row : *tables) {
      if (!oids.empty()) oids += ',';
      oids += row[0];
      made.tables.push_back({row[1], row[2], {}});
      const auto columns = link->query(columns_query(row[0]));
      if (!columns) return tl::unexpected(columns.error());
      auto& table = made.tables.back();
      for (const auto& column : *columns) {
        table.columns.push_back(column[0]);
        const auto limit = std::strtoul(column[2].c_str(), nullptr, 10);
        table.types.push_back({column[1], static_cast<std::uint32_t>(limit), column[3] == "t"});
      }
    }
  }
  const auto paths = link->query(paths_query);
  if (!paths) return tl::unexpected(paths.error());
  for (const auto& row : *paths) made.paths[row[0]] = row[1];
  const auto hiding = link->query(hiding_query(oids));
  if (!hiding) return tl::unexpected(hiding.error());
  for (const auto& row : *hiding) {
    (row[2] == "t" ? made.hides_sharded : made.namesakes).insert(row[0] + "." + row[1]);
  }
  const auto functions = link->query(functions_query());
  if (!functions) return tl::unexpected(functions.error());
  for (const auto& row : *functions) {
    if (row[1] == "t") made.safe_functions.insert(row[0]);
    if (row[2] == "t") made.immutable_functions.insert(row[0]);
  }
  if (!job.tables.empty() && shard == 0) {
    const auto triggers = link->query(key_triggers_query(*link, job.tables));
    if (!triggers) return tl::unexpected(triggers.error());
    for (const auto& row : *triggers) made.key_triggers.push_back(row[0]);
    const auto followed = link->query(followed_query(*link, job.tables));
    if (!followed) return tl::unexpected(followed.error());
    for (const auto& row : *followed) {
      made.followed.push_back({row[0], row[1], row[2], row[3], row[4]});
    }
  }
  made.loaded = true;
  return made;
}

}  // namespace

// The others are asked at the same time, a few of them: their number is not to be felt.
result<plan::catalog> read_catalog(const catalog_job& job, const std::atomic<bool>& stop) {
  std::vector<std::optional<plan::catalog>> others(job.shards.size());
  std::atomic<std::size_t> next{0};
  const auto ask = [&] {
    for (auto at = next++; at < job.holding.size(); at = next++) {
      const auto shard = job.holding[at];
      if (shard == 0 || shard >= job.shards.size()) continue;
      if (auto got = read_one_catalog(job, shard, comparison_timeout, stop)) {
        others[shard].emplace(std::move(*got));
      }
    }
  };
  std::vector<std::thread> helpers;
  const auto count = std::min<std::size_t>(job.holding.size(), most_at_once);
  for (std::size_t i = 0; i < count; ++i) helpers.emplace_back(ask);
  auto made = read_one_catalog(job, 0, connect_timeout, stop);
  for (auto& helper : helpers) helper.join();
  for (std::uint32_t shard = 1; made && shard < others.size(); ++shard) {
    if (others[shard]) merge_catalog(*made, *others[shard], shard);
  }
  return made;
}

}  // namespace pgsled::router
