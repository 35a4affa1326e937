// What a move_runner takes away again: everything after a failure, old rows and its tools after a
// flip. Each of it can be repeated.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/commit/statements.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/pieces.hpp"
#include "services/replicator/move/runner.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

using commit::statements::literal;

namespace {

constexpr std::chrono::milliseconds rows_wait{3'600'000};

}  // namespace

// The slot, origins, publication and identities of this job on one shard.
trouble move_runner::drop_tools(shard_number shard, moving::stored at) {
  auto& link = scene_.link(shard);
  const auto there = has_jobs(link);
  if (!there) return there.error();
  if (!*there) return std::nullopt;
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
  const auto there = has_jobs(link);
  if (!there) return there.error();
  if (!*there) return std::nullopt;
  auto patient = scene_.open(scene_.destination, rows_wait);   // large indexes
  if (!patient) return patient.error();
  if (auto error = delete_filled(*patient, scene_, [this] { return still_runs(); })) return error;
  return restore_indexes(scene_, *patient);
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
    const auto there = has_jobs(link);
    if (!there) return there.error();
    if (!*there) continue;
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

// As long as the job is flipped there, too, and the rows are where they belong now.
trouble move_runner::clean_table(management::connection& link, const moving::table& one) {
  const auto rows = fmt::format(
      "{} AND EXISTS (SELECT FROM pgsled.job WHERE id = {} AND phase = 'flipped')",
      moving::where_moving(one, {scene_.map.size(), scene_.moving}), literal(order_.job));
  return delete_in_pieces(link, scene_, moving::in_sql(one), rows, [this]() -> trouble {
    if (auto error = still_runs()) return error;
    return destination_has_them();   // it may be another server by now
  });
}

trouble move_runner::still_runs() const {
  if (stopped_) return pg_error{"57P01", "the process ends", {}, {}};
  return std::nullopt;
}

}  // namespace pgsled::replicator
