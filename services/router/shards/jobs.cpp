#include "services/router/shards/jobs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <thread>

#include "common/management/together.hpp"
#include "services/router/commit/jobs.hpp"
#include "services/router/control/placement_change.hpp"
#include "services/router/names/jobs.hpp"
#include "services/router/shards/catalog_merge.hpp"

namespace pgsled::router {

namespace {

constexpr std::chrono::milliseconds connect_timeout{3000};
// Of shards whose catalogs are compared with the first one's.
constexpr std::chrono::milliseconds comparison_timeout{1000};
constexpr std::size_t most_at_once = 4;

template <class Integer>
std::optional<Integer> number(const std::string& text) {
  Integer value{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

result<std::optional<stored_map>> read_map(management::connection& link,
                                           const std::string& database) {
  const auto there =
      link.query("SELECT to_regprocedure('pgsled.read_shard_map(text)') IS NOT NULL, "
                 "to_regprocedure('pgsled.read_move(text)') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  if (there->empty() || (*there)[0][0] != "t") return std::optional<stored_map>();
  // Map and fence of one snapshot: an older map must not be read as one without a fence, which
  // nothing can change any more.
  const std::string of = link.literal(database);
  const bool moves = (*there)[0][1] == "t";
  const auto rows = link.query(fmt::format(
      "SELECT m.epoch, m.shard, m.buckets, {} FROM pgsled.read_shard_map({}) m{}",
      moves ? "v.job, v.fence" : "'', ''", of, moves ? ", pgsled.read_move(" + of + ") v" : ""));
  if (!rows) return tl::unexpected(rows.error());
  if (rows->empty()) return std::optional<stored_map>();
  const auto& row = rows->front();
  stored_map map;
  map.epoch = number<std::uint64_t>(row[0]).value_or(0);   // 0 and empty count as damaged
  map.shard = number<std::uint32_t>(row[1]).value_or(0);
  map.buckets = buckets_from_text(row[2]).value_or(std::vector<std::uint32_t>());
  map.job = row[3];
  map.fence = row[4];
  return std::optional(std::move(map));
}

// A fence that nobody stands for any more. Afterwards nothing changes the map under it.
result<std::optional<stored_map>> read_settled_map(management::connection& link,
                                                   const map_job& job) {
  auto map = read_map(link, job.database);
  if (!map || !*map || (*map)->fence.empty() || (*map)->fence == job.keep_fence) return map;
  const auto lifted = link.query(fmt::format("SET synchronous_commit = on; "
                                             "SELECT pgsled.lift_fence({})",
                                             link.literal(job.database)));
  if (!lifted) return tl::unexpected(lifted.error());
  return read_map(link, job.database);
}

std::optional<pg_error> write_map(management::connection& link, const std::string& database,
                                  std::uint32_t shard, const map_decision& map) {
  const auto made = link.query(shard_map_schema());
  if (!made) return made.error();
  const auto stored = link.query(fmt::format(
      "SET synchronous_commit = on; SELECT pgsled.store_shard_map({}, {}, {}, '{}')",
      link.literal(database), map.epoch, shard, buckets_to_text(map.buckets)));
  if (!stored) return stored.error();
  return std::nullopt;
}

// What the file says, where it is not stored yet. Why it cannot hold, if it contradicts what is.
result<std::optional<pg_error>> settle_placements(management::connection& link,
                                                  const map_job& job) {
  const auto there = link.query("SELECT to_regclass('pgsled.placement') IS NOT NULL");
  if (!there) return tl::unexpected(there.error());
  if ((*there)[0][0] != "t") {
    const auto made = link.query(shard_map_schema());
    if (!made) return tl::unexpected(made.error());
  }
  const auto rows = link.query(fmt::format(
      "SELECT entry, definition FROM pgsled.placement WHERE database = {}",
      link.literal(job.database)));
  if (!rows) return tl::unexpected(rows.error());
  std::map<std::string, std::string> stored;
  std::vector<snapshot::placed_table> before;
  for (const auto& row : *rows) {
    auto read = snapshot::from_json<snapshot::placed_table>(row[1]);
    if (!read) continue;   // of a later version: it knows more than can be compared here
    stored[row[0]] = row[1];
    before.push_back(std::move(*read));
  }
  if (auto why = placement_change(job.database, before, job.tables, job.placed_by_hand)) {
    return std::optional(std::move(*why));
  }
  for (const auto& one : job.tables) {
    const auto entry = entry_of(one), definition = snapshot::to_json(one);
    if (stored[entry] == definition) continue;
    const auto done = link.query(fmt::format(
        "INSERT INTO pgsled.placement AS p (database, entry, definition) VALUES ({0}, {1}, {2}) "
        "ON CONFLICT (database, entry) DO UPDATE SET definition = {2}, stored_at = now()",
        link.literal(job.database), link.literal(entry), link.literal(definition)));
    if (!done) return tl::unexpected(done.error());
  }
  return std::optional<pg_error>();
}

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

// Relations through which the tables `oids` are read or written under another name: views of
// views and so on, partitions and inheritance in both directions. Foreign tables count because
// what they read is not known, views because of a function whose body is not known, too. And with
// "f" the other relations of such a name: without a schema the first in the path is meant.
std::string hiding_query(const std::string& oids) {
  return fmt::format(R"sql(
WITH RECURSIVE unsafe AS (
  SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND (l.lanname NOT IN ('c', 'internal') OR p.prokind = 'a')
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
                     oids);
}

// A name is safe, or immutable, only when every function of that name is: the planner sees names.
// Functions that run a query given as text are built in but read tables.
constexpr const char* functions_query = R"sql(
SELECT p.proname,
  bool_and((n.nspname IN ('pg_catalog', 'information_schema')
            OR (l.lanname IN ('c', 'internal') AND p.prokind <> 'a'))
    AND p.proname !~ '^(query|table|schema|database|cursor)_to_xml' AND p.proname !~ '^dblink'
    AND p.proname NOT IN ('ts_stat', 'ts_rewrite')),
  bool_and(p.provolatile = 'i')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
JOIN pg_namespace n ON n.oid = p.pronamespace
GROUP BY p.proname)sql";

}  // namespace

namespace {

// What one shard has. The error: what is there belongs to another database or shard.
std::optional<pg_error> read_shard(const map_job& job, std::size_t shard,
                                   management::connection& link, shard_reading& reading) {
  reading = {};
  const auto named = settle_name(link, job.database, static_cast<std::uint32_t>(shard), job.names);
  if (named && named->other) return named->other;
  if (!named) {
    reading.problem = named.error().message;
    return std::nullopt;
  }
  auto map = read_settled_map(link, job);
  if (!map) {
    reading.problem = map.error().message;
    return std::nullopt;
  }
  // A move of all of it to other servers keeps others off the map, and leaves it as it is.
  if (*map && (*map)->job == named->job) (*map)->job.clear();
  reading.reached = true;
  reading.map = std::move(*map);
  return std::nullopt;
}

}  // namespace

map_decision settle_map(const map_job& job, kept_links kept, const std::atomic<bool>& stop) {
  if (kept.shards != job.shards) kept.links.clear();
  std::vector<shard_reading> readings(job.shards.size());
  std::vector<std::optional<management::connection>> links(job.shards.size());
  // Clients may be waiting for a fence to fall: all at once.
  using problem = std::optional<pg_error>;
  const auto other = management::together(links.size(), [&](std::size_t i) -> problem {
    if (i < kept.links.size()) {
      links[i].emplace(std::move(kept.links[i]));
      links[i]->wait_at_most(connect_timeout);
      auto error = read_shard(job, i, *links[i], readings[i]);
      if (error || readings[i].reached) return error;
    }
    // A kept one may be to a server that is not there any more.
    links[i].reset();
    auto link = management::connection::open(job.shards[i], job.tls, connect_timeout, stop);
    if (!link) {
      readings[i].problem = link.error().message;
      return std::nullopt;
    }
    auto error = read_shard(job, i, *link, readings[i]);
    if (readings[i].reached) links[i].emplace(std::move(*link));
    return error;
  });
  if (other) {
    map_decision no;
    no.what = map_decision::outcome::refused;
    no.reason = other->message + ". " + other->hint;
    return no;
  }
  map_decision decided = decide(job.database, readings);
  if (decided.what != map_decision::outcome::known) return decided;
  // Before anybody is served, so that the first commit finds it. Why it fails the commit service
  // says, and goes on trying; one shard alone can be worked with without.
  if (job.decisions && !job.placed) {
    management::together(links.size(), [&](std::size_t i) -> problem {
      if (links[i]) static_cast<void>(make_decision_schema(*links[i]));
      return std::nullopt;
    });
  }
  for (const std::uint32_t shard : decided.write_to) {
    if (const auto error = write_map(*links[shard], job.database, shard, decided)) {
      // A map that some shard holds is true wherever else it is missing; one that none holds yet
      // must not serve anybody.
      const bool stored = std::any_of(readings.begin(), readings.end(), [&](const auto& one) {
        return one.map && one.map->epoch == decided.epoch;
      });
      if (!stored) decided.what = map_decision::outcome::unknown;
      decided.complete = false;
      decided.reason = fmt::format(
          "the shard map could not be stored on shard {}: {} (give a user of this database "
          "schema_admin = true whose server role may create a schema)", shard, error->message);
      return decided;
    }
  }
  for (std::size_t i = 0; i < links.size() && !job.placed; ++i) {
    if (!links[i]) continue;
    const auto held = settle_placements(*links[i], job);
    if (!held) {
      decided.complete = false;
      decided.reason = fmt::format("how rows are placed could not be stored on shard {}: {}", i,
                                   held.error().message);
    } else if (*held) {
      decided.what = map_decision::outcome::refused;
      decided.reason = (*held)->message + ". " + (*held)->hint;
      return decided;
    }
  }
  return decided;
}

result<bool> do_move_work(const map_job& job, const move_work& work, kept_links& keep,
                          const std::atomic<bool>& stop) {
  std::vector<management::connection> links;
  for (std::size_t i = 0; i < job.shards.size(); ++i) {
    auto link = management::connection::open(job.shards[i], job.tls, connect_timeout, stop);
    if (!link) return tl::unexpected(link.error());
    links.push_back(std::move(*link));
  }
  const auto call = [&](management::connection& link, const std::string& function) {
    return link.query("SET synchronous_commit = on; SELECT pgsled." + function);
  };
  const auto database = [&](management::connection& link) { return link.literal(work.database); };
  // Of the fence: only a map that is the same everywhere can be changed under it.
  std::uint64_t epoch = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    management::connection& link = links[i];
    result<management::connection::rows> said;
    const std::string name = link.literal(work.job);
    switch (work.what) {
      case move_work::kind::begin:
        said = link.query(shard_map_schema());
        if (said) said = call(link, fmt::format("begin_move({}, {})", database(link), name));
        break;
      case move_work::kind::end:
        said = call(link, fmt::format("end_move({}, {})", database(link), name));
        break;
      case move_work::kind::set_fence: {
        const auto map = read_map(link, work.database);
        if (!map) return tl::unexpected(map.error());
        if (*map && epoch == 0) epoch = (*map)->epoch;
        said = call(link, fmt::format("set_fence({}, {}, {}, {})", database(link), name, epoch,
                                      link.literal(work.fence)));
        break;
      }
    }
    if (!said) return tl::unexpected(said.error());
    if (work.what == move_work::kind::end) continue;
    const std::string got = said->empty() ? std::string() : said->front()[0];
    if (got == (work.what == move_work::kind::begin ? work.job : "t")) continue;
    if (work.what == move_work::kind::set_fence) {
      return failure("55006", fmt::format("shard {} has another map or another fence", i));
    }
    for (std::size_t done = 0; done < i; ++done) {
      if (const auto undone = call(links[done], fmt::format("end_move({}, {})",
                                                            database(links[done]), name));
          !undone) {
        return tl::unexpected(undone.error());
      }
    }
    return failure("55006", got.empty() ? fmt::format("shard {} has no stored map yet", i)
                                        : fmt::format("another move is registered on shard {}: {}",
                                                      i, got));
  }
  if (work.what == move_work::kind::set_fence) {
    keep.shards = job.shards;
    keep.links = std::move(links);
  }
  return true;
}

namespace {

// Functions of BEFORE triggers that may give a row another key than its statement says: where it is
// stored was decided before. And foreign keys that change it together with a row of another table,
// but for one whose own sharding key that is: nobody may change it.
std::string key_triggers_query(const management::connection& link,
                               const std::vector<plan::sharded_table>& tables) {
  const auto values = values_of(link, tables);
  return fmt::format(R"sql(
SELECT DISTINCT n.nspname || '.' || c.relname || ': trigger ' || g.tgname || ', column ' || t.col
FROM (VALUES {0}) AS t (schema, name, col)
JOIN pg_class c ON t.name = '' OR c.relname = t.name
JOIN pg_namespace n ON n.oid = c.relnamespace AND (t.schema = '' OR n.nspname = t.schema)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.col AND a.attnum > 0
JOIN pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'
  AND g.tgtype & 3 = 3 AND g.tgtype & 20 <> 0
JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'pgsled'
  AND l.lanname NOT IN ('c', 'internal') AND (l.lanname <> 'plpgsql' OR p.prosrc ~*
    ('\mnew\s*:?=|\minto\s+new\M|\mnew\s*\.\s*"?' ||
     regexp_replace(t.col, '(\W)', '\\\1', 'g') || '"?\s*:?=|\minto\M[^;]*\mnew\s*\.\s*"?' ||
     regexp_replace(t.col, '(\W)', '\\\1', 'g')))
UNION
SELECT n.nspname || '.' || c.relname || ': foreign key ' || k.conname || ', column ' || t.col
FROM (VALUES {0}) AS t (schema, name, col)
JOIN pg_class c ON t.name = '' OR c.relname = t.name
JOIN pg_namespace n ON n.oid = c.relnamespace AND (t.schema = '' OR n.nspname = t.schema)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = t.col AND a.attnum > 0
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey)
WHERE k.confdeltype IN ('n', 'd') OR k.confupdtype IN ('c', 'n', 'd') AND NOT EXISTS (
  SELECT FROM (VALUES {0}) AS p (schema, name, col)
  JOIN pg_class o ON o.oid = k.confrelid AND (p.name = '' OR o.relname = p.name)
  JOIN pg_attribute r ON r.attrelid = o.oid AND r.attname = p.col
    AND r.attnum = k.confkey[array_position(k.conkey, a.attnum)])
ORDER BY 1)sql",
                     values);
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
        table.types.push_back({column[1], number<std::uint32_t>(column[2]).value_or(0),
                               column[3] == "t"});
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
  const auto functions = link->query(functions_query);
  if (!functions) return tl::unexpected(functions.error());
  for (const auto& row : *functions) {
    if (row[1] == "t") made.safe_functions.insert(row[0]);
    if (row[2] == "t") made.immutable_functions.insert(row[0]);
  }
  if (!job.tables.empty() && shard == 0) {
    const auto triggers = link->query(key_triggers_query(*link, job.tables));
    if (!triggers) return tl::unexpected(triggers.error());
    for (const auto& row : *triggers) made.key_triggers.push_back(row[0]);
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
