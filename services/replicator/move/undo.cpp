// What a move_runner takes away again: everything after a failure, old rows and its tools after a
// flip. Each of it can be repeated.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/commit/statements.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/runner.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::chrono::milliseconds rows_wait{3'600'000};
constexpr std::int64_t blocks_at_once = 256;   // of the table, in one transaction of the clean-up

std::vector<std::string> column_of(const management::connection::rows& rows) {
  std::vector<std::string> all;
  for (const auto& row : rows) all.push_back(row.at(0));
  return all;
}

}  // namespace

// The slot, origins, publication and identities of this job on one shard; with `rows` also what was
// copied to it.
trouble move_runner::drop_on(shard_number shard, bool rows) {
  auto& link = scene_.link(shard);
  const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
  if (!there) return there.error();
  if (*there != "t") return std::nullopt;
  const auto recorded = one_value(link, fmt::format(
      "SELECT phase FROM pgsled.job WHERE id = {} AND round = {}", literal(order_.job),
      scene_.round));
  if (!recorded) return recorded.error();
  if (recorded->empty()) return std::nullopt;   // nothing is done before it is recorded
  if (rows && (*recorded == "flipped" || *recorded == "done")) {
    return pg_error{"XX000", "the move is past its flip", {}, {}};   // only a bug
  }
  const auto of_job = [&](const char* array) {
    return link.query(fmt::format("SELECT unnest({}) FROM pgsled.job WHERE id = {}", array,
                                  literal(order_.job)));
  };
  if (auto error = drop_slot(link, scene_.slot(shard))) return error;
  // Origins are of a whole server: those of other shards on the same one are theirs.
  const auto origins = shard == scene_.destination
                           ? fmt::format("roname LIKE 'pgsled\\_{}\\_%' AND roname NOT LIKE "
                                         "'%\\_clean\\_%'", order_.job)
                           : fmt::format("roname = '{}'", scene_.cleaner(shard));
  if (auto error = patiently(link, "SELECT pg_replication_origin_drop(roname) FROM "
                                   "pg_replication_origin WHERE " + origins)) {
    return error;
  }
  if (auto error = execute(link, "DROP PUBLICATION IF EXISTS " + scene_.publication())) {
    return error;
  }
  if (auto error = restore_identities(link, scene_)) return error;
  std::string sql = hold_job(scene_) + "; SET LOCAL session_replication_role = replica; ";
  if (rows) {
    const auto filled = of_job("filled");
    if (!filled) return filled.error();
    for (const auto& one : column_of(*filled)) {   // one that was dropped meanwhile has no rows
      sql += "DO" + literal("BEGIN DELETE FROM " + one + "; EXCEPTION WHEN undefined_table THEN "
                            "NULL; END") + "; ";
    }
  }
  auto patient = scene_.open(shard, rows_wait);   // many rows may have been copied
  if (!patient) return patient.error();
  if (auto error = execute(*patient, sql + fmt::format(
          "UPDATE pgsled.job SET filled = '{{}}' WHERE id = {}",
          literal(order_.job)))) {
    return error;
  }
  return rows ? restore_indexes(scene_, *patient) : trouble();
}

trouble move_runner::undo() {
  auto found = moving::stored::nothing;
  if (auto error = settle(found)) return error;
  if (stored_round_ < scene_.round) return std::nullopt;   // this one was not recorded anywhere
  if (found == moving::stored::flipped) {
    return pg_error{"XX000", "the move is past its flip", {}, {}};   // only a bug
  }
  for (shard_number shard = 0; shard < scene_.where.shards.size(); ++shard) {
    if (auto error = drop_on(shard, shard == scene_.destination)) return error;
  }
  for (auto& [shard, link] : scene_.links) {
    const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
    if (!there) return there.error();
    if (*there != "t") continue;
    if (auto error = execute(link, fmt::format(
            "UPDATE pgsled.job SET phase = 'undone', changed_at = now() WHERE id = {} "
            "AND phase = 'moving'", literal(order_.job)))) {
      return error;
    }
  }
  progress_.rows = progress_.bytes = progress_.changes = progress_.lag = 0;
  return std::nullopt;
}

trouble move_runner::drop() {
  streams_.clear();
  for (shard_number shard = 0; shard < scene_.where.shards.size(); ++shard) {
    if (auto error = drop_on(shard, false)) return error;
  }
  return on_all(fmt::format("UPDATE pgsled.job SET phase = 'done', changed_at = now() "
                            "WHERE id = {} AND phase = 'flipped'", literal(order_.job)));
}

trouble move_runner::clean() {
  streams_.clear();
  auto found = moving::stored::nothing;
  if (auto error = settle(found)) return error;
  if (found != moving::stored::flipped) {
    return pg_error{"XX000", "the move is not past its flip", {}, {}};   // only a bug
  }
  for (const shard_number source : scene_.sources) {
    auto& link = scene_.link(source);
    // Before anything is deleted the shard itself has to say that it owns none of it.
    const auto given_away = one_value(link, fmt::format(
        "SELECT bool_and(m.buckets[b + 1] = {}) FROM pgsled.shard_map m, "
        "unnest('{{{}}}'::integer[]) b WHERE m.database = {} AND cardinality(m.buckets) = {}",
        scene_.destination,
        fmt::join(scene_.moving, ","), literal(order_.database), scene_.map.size()));
    if (!given_away) return given_away.error();
    if (*given_away != "t") {
      return pg_error{"XX001", fmt::format("the map on shard {} is not the one that the move made",
                                           source), {}, {}};
    }
    const auto origin = scene_.cleaner(source);
    if (auto error = patiently(link, fmt::format(
            "SELECT pg_replication_origin_create('{0}') WHERE NOT EXISTS (SELECT FROM "
            "pg_replication_origin WHERE roname = '{0}')", origin))) {
      return error;
    }
    if (auto error = patiently(link, fmt::format(
            "SET session_replication_role = replica; "
            "SELECT pg_replication_origin_session_setup('{}')", origin))) {
      return error;
    }
    for (const moving::table& one : scene_.tables[source]) {
      if (one.whole()) continue;
      if (auto error = clean_table(link, one)) return error;
    }
    if (auto error = execute(link, "SELECT pg_replication_origin_session_reset(); "
                                   "RESET session_replication_role")) {
      return error;
    }
  }
  return std::nullopt;
}

// In small batches by their place in the table, as long as the job is this runner's and flipped;
// until a whole pass finds none.
trouble move_runner::clean_table(management::connection& link, const moving::table& one) {
  const auto rows = moving::where_moving(one, {scene_.map.size(), scene_.moving});
  const auto name = moving::in_sql(one);
  while (true) {
    const auto blocks = one_value(link, fmt::format(
        "SELECT pg_relation_size({}) / current_setting('block_size')::bigint", literal(name)));
    if (!blocks) return blocks.error();
    const std::int64_t end = std::stoll(*blocks);
    std::int64_t gone = 0;
    for (std::int64_t from = 0; from < end; from += blocks_at_once) {
      if (stopped_) return pg_error{"57P01", "the process ends", {}, {}};
      const auto touched = link.run(fmt::format(
              "{}; DELETE FROM ONLY {} WHERE ctid >= '({},0)' AND ctid < '({},0)' AND {} AND "
              "EXISTS (SELECT FROM pgsled.job WHERE id = {} AND phase = 'flipped')",
              hold_job(scene_), name, from, from + blocks_at_once, rows, literal(order_.job)));
      if (!touched) return touched.error();
      gone += touched->back();
    }
    if (gone == 0) return std::nullopt;
  }
}

}  // namespace pgsled::replicator
