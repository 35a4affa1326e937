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

constexpr std::int64_t blocks_at_once = 256;   // of a table, in one transaction

// An entry of pgsled.job.filled: a table, and perhaps which of its rows.
std::pair<std::string, std::string> filled_table(const std::string& entry) {
  bool quoted = false;
  for (std::size_t i = 0; i < entry.size(); ++i) {
    quoted = quoted != (entry[i] == '"');
    if (quoted || entry[i] != ' ') continue;
    constexpr std::string_view where = " WHERE ";
    if (entry.compare(i, where.size(), where) != 0) break;
    return {entry.substr(0, i), entry.substr(i + where.size())};
  }
  return {entry, "true"};
}

}  // namespace

// The slot, origins, publication and identities of this job on one shard.
trouble move_runner::drop_tools(shard_number shard, moving::stored at) {
  auto& link = scene_.link(shard);
  const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
  if (!there) return there.error();
  if (*there != "t") return std::nullopt;
  const auto recorded = one_value(link, fmt::format(
      "SELECT phase FROM pgsled.job WHERE id = {} AND round = {}", literal(order_.job),
      scene_.round));
  if (!recorded) return recorded.error();
  if (recorded->empty()) return std::nullopt;   // nothing is done before it is recorded
  if (at != moving::stored::flipped && (*recorded == "flipped" || *recorded == "done")) {
    return pg_error{"XX000", "the move is past its flip", {}, {}};   // only a bug
  }
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
  return restore_identities(link, scene_);
}

// What was copied.
trouble move_runner::drop_rows() {
  auto& link = scene_.link(scene_.destination);
  const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
  if (!there) return there.error();
  if (*there != "t") return std::nullopt;
  const auto filled = link.query(fmt::format(
      "SELECT unnest(filled) FROM pgsled.job WHERE id = {} AND round = {} AND phase = 'moving'",
      literal(order_.job), scene_.round));
  if (!filled) return filled.error();
  if (auto error = execute(link, "SET session_replication_role = replica")) return error;
  for (const auto& row : *filled) {
    const auto [name, rows] = filled_table(row[0]);
    if (auto error = delete_rows(link, name, rows, moving::stored::moving)) return error;
  }
  if (auto error = execute(link, fmt::format(
          "RESET session_replication_role; {}; UPDATE pgsled.job SET filled = '{{}}' WHERE id = {}",
          hold_job(scene_), literal(order_.job)))) {
    return error;
  }
  return restore_indexes(scene_, link);
}

trouble move_runner::undo() {
  auto found = moving::stored::nothing;
  if (auto error = settle(found)) return error;
  if (stored_round_ < scene_.round) return std::nullopt;   // this one was not recorded anywhere
  if (found == moving::stored::flipped) {
    return pg_error{"XX000", "the move is past its flip", {}, {}};   // only a bug
  }
  // Whoever takes it over in the middle of this must not begin again what has ended for good.
  if (!job_.again()) {
    if (auto error = mark_moving("given_up = true")) return error;
  }
  // Slots first: they hold back the log of their servers.
  for (shard_number shard = 0; shard < scene_.where.shards.size(); ++shard) {
    if (auto error = drop_tools(shard, moving::stored::moving)) return error;
  }
  if (auto error = drop_rows()) return error;
  if (auto error = mark_moving("phase = 'undone'")) return error;
  progress_.rows = progress_.bytes = progress_.changes = progress_.lag = 0;
  return std::nullopt;
}

// On the shards that have heard of the job.
trouble move_runner::mark_moving(const char* how) {
  for (auto& [shard, link] : scene_.links) {
    const auto there = one_value(link, "SELECT to_regclass('pgsled.job') IS NOT NULL");
    if (!there) return there.error();
    if (*there != "t") continue;
    if (auto error = execute(link, fmt::format(
            "UPDATE pgsled.job SET {}, changed_at = now() WHERE id = {} AND phase = 'moving'", how,
            literal(order_.job)))) {
      return error;
    }
  }
  return std::nullopt;
}

// Connections may have been idle for long, and ended by something between: taken anew.
trouble move_runner::settle_flipped() {
  auto found = moving::stored::nothing;
  if (auto error = settle(found)) return error;
  if (found != moving::stored::flipped) {
    return pg_error{"XX000", "the move is not past its flip", {}, {}};   // only a bug
  }
  return std::nullopt;
}

trouble move_runner::drop() {
  if (auto error = settle_flipped()) return error;
  for (shard_number shard = 0; shard < scene_.where.shards.size(); ++shard) {
    if (auto error = drop_tools(shard, moving::stored::flipped)) return error;
  }
  return on_all(fmt::format("UPDATE pgsled.job SET phase = 'done', changed_at = now() "
                            "WHERE id = {} AND phase = 'flipped'", literal(order_.job)));
}

// The flip is behind all rows in the destination's log: where it is, they are. A standby that was
// promoted without the end of that log has neither, and the rows are on their old shards only.
trouble move_runner::destination_has_them() {
  const auto phase = one_value(scene_.link(scene_.destination), fmt::format(
      "SELECT phase FROM pgsled.job WHERE id = {} AND round = {}", literal(order_.job),
      scene_.round));
  if (!phase) return phase.error();
  if (*phase == "flipped" || *phase == "done") return std::nullopt;
  return pg_error{"XX001", fmt::format("shard {} does not know that rows were moved to it, so that "
                                       "it may lack some of them; their old places are left as "
                                       "they are", scene_.destination),
                  fmt::format("Was a standby promoted that had not received everything? When it "
                              "has all rows of the old places again: UPDATE pgsled.job SET phase = "
                              "'flipped' WHERE id = {} there.", literal(order_.job)), {}};
}

trouble move_runner::clean() {
  if (auto error = settle_flipped()) return error;
  if (auto error = destination_has_them()) return error;
  // They hold back the log of the sources, which all that is deleted goes to.
  for (const shard_number source : scene_.sources) {
    if (auto error = drop_slot(scene_.link(source), scene_.slot(source))) return error;
  }
  for (const shard_number source : scene_.sources) {
    if (auto error = drop_tools(source, moving::stored::flipped)) return error;
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

trouble move_runner::clean_table(management::connection& link, const moving::table& one) {
  return delete_rows(link, moving::in_sql(one),
                     moving::where_moving(one, {scene_.map.size(), scene_.moving}),
                     moving::stored::flipped);
}

// In small batches by their place in the table, as long as the job is this runner's and as far as
// it is; until a whole pass finds none. A table that was dropped meanwhile has no rows.
trouble move_runner::delete_rows(management::connection& link, const std::string& name,
                                 const std::string& rows, moving::stored at) {
  const bool flipped = at == moving::stored::flipped;
  while (true) {
    const auto blocks = one_value(link, fmt::format(
        "SELECT pg_relation_size(to_regclass({})) / current_setting('block_size')::bigint",
        literal(name)));
    if (!blocks) return blocks.error();
    if (blocks->empty()) return std::nullopt;
    const std::int64_t end = std::stoll(*blocks);
    std::int64_t gone = 0;
    for (std::int64_t from = 0; from < end; from += blocks_at_once) {
      if (stopped_) return pg_error{"57P01", "the process ends", {}, {}};
      if (flipped) {   // it may be another server by now
        if (auto error = destination_has_them()) return error;
      }
      const auto touched = link.run(fmt::format(
              "{}; DELETE FROM ONLY {} WHERE ctid >= '({},0)' AND ctid < '({},0)' AND {} AND "
              "EXISTS (SELECT FROM pgsled.job WHERE id = {} AND phase = '{}')",
              hold_job(scene_), name, from, from + blocks_at_once, rows, literal(order_.job),
              flipped ? "flipped" : "moving"));
      if (!touched) return touched.error();
      gone += touched->back();
    }
    if (gone == 0) return std::nullopt;
  }
}

}  // namespace pgsled::replicator
