#include "services/replicator/move/indexes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "common/commit/statements.hpp"
#include "services/replicator/move/crew.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::chrono::milliseconds very_long_wait{24 * 3'600'000};   // an index of a large table

// Of the tables {0}, an array of names: statements that drop, and those that make again. Foreign
// keys come first. What is not mentioned in a definition must be at its default.
constexpr const char* aside_query = R"sql(
WITH moved AS (SELECT t::regclass AS oid FROM unnest({0}) t),
plain AS (SELECT oid FROM pg_class WHERE relkind = 'r' AND NOT relispartition),
refs AS (
  SELECT k.* FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
    AND (k.conrelid IN (SELECT oid FROM moved) OR k.confrelid IN (SELECT oid FROM moved))
    AND k.conrelid IN (SELECT oid FROM plain) AND k.confrelid IN (SELECT oid FROM plain)
    AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled <> 'O')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_constraint'::regclass
                    AND d.refobjid = k.oid AND d.classid <> 'pg_trigger'::regclass)),
keys AS (
  SELECT i.oid, x.indrelid, i.relname, i.reloptions, k.oid AS con, k.conname
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
  LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = x.indrelid
    AND k.contype IN ('p', 'u', 'x')
  WHERE x.indrelid IN (SELECT oid FROM moved) AND x.indrelid IN (SELECT oid FROM plain)
    AND x.indisvalid AND x.indisready AND NOT x.indisreplident AND NOT x.indisclustered
    AND i.reltablespace = 0 AND (k.oid IS NULL OR i.reloptions IS NULL)
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.oid AND a.attstattarget >= 0)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass
                    AND d.refobjid = i.oid AND d.objid NOT IN (SELECT oid FROM refs))
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_constraint'::regclass
                    AND d.refobjid = k.oid AND d.objid <> i.oid))
SELECT 'reference', conrelid::regclass::text,
  format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
  format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', conrelid::regclass, conname,
         pg_get_constraintdef(oid), CASE WHEN convalidated THEN ' NOT VALID' ELSE '' END)
  || coalesce(format('; COMMENT ON CONSTRAINT %I ON %s IS %L', conname, conrelid::regclass,
                     obj_description(oid, 'pg_constraint')), ''),
  CASE WHEN convalidated THEN
    format('ALTER TABLE %s VALIDATE CONSTRAINT %I', conrelid::regclass, conname) ELSE '' END
FROM refs
UNION ALL
SELECT 'index', indrelid::regclass::text,
  CASE WHEN con IS NULL THEN format('DROP INDEX %s', oid::regclass)
       ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', indrelid::regclass, conname) END,
  CASE WHEN con IS NULL THEN pg_get_indexdef(oid)
       ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', indrelid::regclass, conname,
                   pg_get_constraintdef(con)) END
  || CASE WHEN obj_description(oid, 'pg_class') IS NULL THEN '' ELSE
       format('; COMMENT ON INDEX %s IS %L', oid::regclass, obj_description(oid, 'pg_class')) END
  || CASE WHEN obj_description(con, 'pg_constraint') IS NULL THEN '' ELSE
       format('; COMMENT ON CONSTRAINT %I ON %s IS %L', conname, indrelid::regclass,
              obj_description(con, 'pg_constraint')) END, ''
FROM keys
ORDER BY 1 DESC, 2, 4)sql";

std::vector<std::string> tables_of(const move_scene& scene) {
  std::set<std::string> names;
  for (const auto& [source, tables] : scene.tables) {
    for (const auto& one : tables) names.insert(moving::in_sql(one));
  }
  return {names.begin(), names.end()};
}

// Makes one thing again, once: with it goes the record of it.
trouble make(const move_scene& scene, management::connection& link, const std::string& place,
             const std::string& statement) {
  return execute(link, fmt::format("{}; {}; DELETE FROM pgsled.job_later WHERE job = {} "
                                   "AND place = {}", hold_job(scene), statement,
                                   literal(scene.job), place));
}

result<management::connection::rows> left(const move_scene& scene, management::connection& link,
                                          const char* stage) {
  return link.query(fmt::format(
      "SELECT place, \"table\", statement FROM pgsled.job_later WHERE job = {} AND stage = '{}' "
      "ORDER BY place", literal(scene.job), stage));
}

}  // namespace

trouble set_indexes_aside(move_scene& scene) {
  const auto tables = tables_of(scene);
  if (tables.empty()) return std::nullopt;
  // A shard that has rows of its own has clients, too.
  if (scene.destination_owns()) return std::nullopt;
  auto& link = scene.link(scene.destination);
  const auto found = link.query(fmt::format(fmt::runtime(aside_query), text_array(tables)));
  if (!found) return found.error();
  // One transaction: what is dropped is recorded. Dropped are references before what they refer to.
  std::string drop, record;
  int place = 0;
  const auto later = [&](const char* stage, const std::string& table, const std::string& sql) {
    record += fmt::format("{}({}, {}, '{}', {}, {})", record.empty() ? "" : ", ",
                          literal(scene.job), ++place, stage, literal(table), literal(sql));
  };
  for (const auto& row : *found) drop += "; " + row[2];
  for (const char* stage : {"index", "reference"}) {
    for (const auto& row : *found) {
      if (row[0] == stage) later(stage, row[1], row[3]);
    }
  }
  for (const auto& row : *found) {
    if (!row[4].empty()) later("validation", row[1], row[4]);
  }
  if (record.empty()) return std::nullopt;
  return execute(link, fmt::format("{}; INSERT INTO pgsled.job_later VALUES {}{}", hold_job(scene),
                                   record, drop));
}

trouble put_indexes_back(const move_scene& scene, const std::function<trouble()>& watch) {
  auto asked = scene.open(scene.destination, very_long_wait);
  if (!asked) return asked.error();
  const auto indexes = left(scene, *asked, "index");
  if (!indexes) return indexes.error();
  // One table's are made one after the other: each of its constraints locks it.
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> by_table;
  for (const auto& name : tables_of(scene)) by_table[name];
  for (const auto& row : *indexes) by_table[row[1]].emplace_back(row[0], row[2]);
  std::mutex mutex;
  auto next = by_table.begin();
  move_crew crew;
  const auto work = [&](std::uint32_t) -> trouble {
    auto link = scene.open(scene.destination, very_long_wait);
    if (!link) return link.error();
    while (!crew.failed()) {
      auto mine = by_table.end();
      {
        const std::lock_guard lock(mutex);
        if (next != by_table.end()) mine = next++;
      }
      if (mine == by_table.end()) break;
      trouble error;
      for (const auto& [place, statement] : mine->second) {
        if (!error) error = make(scene, *link, place, statement);
      }
      if (error) {
        if (error->sqlstate == "08006") link->cancel();   // stopped: nobody waits for it any more
        return error;
      }
    }
    return std::nullopt;
  };
  if (auto error = crew.work(scene.where.manner.copies, work, watch)) return error;
  const auto references = left(scene, *asked, "reference");
  if (!references) return references.error();
  for (const auto& row : *references) {
    if (auto error = make(scene, *asked, row[0], row[2])) return error;
  }
  // Plans on the new shard would be made for empty tables otherwise. Who holds the lock does it too.
  for (const auto& name : tables_of(scene)) {
    auto error = execute(*asked, "ANALYZE " + name);
    if (error && error->sqlstate != "55P03") return error;
    if (auto late = watch()) return late;
  }
  return std::nullopt;
}

trouble validate_references(const move_scene& scene) {
  auto link = scene.open(scene.destination, very_long_wait);
  if (!link) return link.error();
  const auto all = left(scene, *link, "validation");
  if (!all) return all.error();
  for (const auto& row : *all) {
    if (auto error = make(scene, *link, row[0], row[2])) {
      if (error->sqlstate == "08006") link->cancel();
      return error;
    }
  }
  return std::nullopt;
}

trouble restore_indexes(const move_scene& scene, management::connection& link) {
  const auto there = one_value(link, "SELECT to_regclass('pgsled.job_later') IS NOT NULL");
  if (!there) return there.error();
  if (*there != "t") return std::nullopt;
  for (const char* stage : {"index", "reference", "validation"}) {
    const auto all = left(scene, link, stage);
    if (!all) return all.error();
    for (const auto& row : *all) {
      if (auto error = make(scene, link, row[0], row[2])) return error;
    }
  }
  return std::nullopt;
}

trouble nothing_set_aside(move_scene& scene) {
  const auto count = one_value(scene.link(scene.destination),
                               "SELECT count(*) FROM pgsled.job_later WHERE job = " +
                                   literal(scene.job));
  if (!count) return count.error();
  if (*count == "0") return std::nullopt;
  return pg_error{"XX000", fmt::format("{} indexes and foreign keys of shard {} were not made "
                                       "again", *count, scene.destination), {}, {}};
}

}  // namespace pgsled::replicator
