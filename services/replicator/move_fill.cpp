// How a move_runner gets the rows to the destination before their changes are followed: identities
// and publications of the sources, the copy, indexes and foreign keys; and what it watches over.

#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "services/replicator/move_copy.hpp"
#include "services/replicator/move_indexes.hpp"
#include "services/replicator/move_runner.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using std::chrono::milliseconds;

constexpr int most_validations = 20;
constexpr milliseconds between_slot_looks{2000};

}  // namespace

// Identities that hold the sharding key, and the publication, in one transaction with the record of
// what was changed. The lock on the tables is asked for only briefly: clients queue behind it.
trouble move_runner::alter(shard_number source) {
  auto& link = scene_.link(source);
  const auto identities = link.query(
      "SELECT n.nspname || '.' || c.relname, c.relreplident, (SELECT quote_ident(i.relname) FROM "
      "pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid AND "
      "x.indisreplident LIMIT 1) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind = 'r' AND c.relreplident <> 'f'");
  if (!identities) return identities.error();
  std::vector<std::string> back;       // as they were
  std::string names, sql = hold_job(scene_) + "; SET LOCAL lock_timeout = '200ms'; ";
  for (const moving::table& one : scene_.tables[source]) {
    const auto name = moving::in_sql(one);
    names += (names.empty() ? "" : ", ") + ("ONLY " + name);
    const auto found = std::find_if(identities->begin(), identities->end(),
                                    [&](const auto& row) { return row[0] == one.label(); });
    if (found == identities->end()) continue;
    const auto& kind = (*found)[1];
    const bool by_primary = !one.primary.empty() && (one.whole() || one.key_in_primary());
    if (kind == "d" && by_primary) continue;
    sql += "ALTER TABLE ONLY " + name + " REPLICA IDENTITY FULL; ";
    back.push_back(name + " REPLICA IDENTITY " +
                   (kind == "n" ? "NOTHING"
                    : kind == "i" && !(*found)[2].empty() ? "USING INDEX " + (*found)[2]
                                                          : "DEFAULT"));
  }
  sql += fmt::format("UPDATE pgsled.job SET altered = {} WHERE id = {}; CREATE PUBLICATION {}{}",
                     text_array(back), literal(order_.job), scene_.publication(),
                     names.empty() ? "" : " FOR TABLE " + names);
  for (int attempt = 0;; ++attempt) {
    auto error = execute(link, sql);
    if (!error || error->sqlstate != "55P03" || attempt == 50 || aborted_ || stopped_) return error;
    wait(100);
  }
}

trouble move_runner::copy() {
  std::vector<std::string> filled;
  for (const auto& [source, tables] : scene_.tables) {
    for (const auto& one : tables) {
      auto name = moving::in_sql(one);
      // What undo deletes, behind DELETE FROM: a shard that owns rows keeps those.
      if (scene_.destination_owns()) {
        name += " WHERE " + moving::where_moving(one, {scene_.map.size(), scene_.moving});
      }
      if (std::find(filled.begin(), filled.end(), name) == filled.end()) filled.push_back(name);
    }
  }
  auto& link = scene_.link(scene_.destination);
  if (auto error = execute(link, fmt::format(
          "{}; UPDATE pgsled.job SET filled = {} WHERE id = {}", hold_job(scene_),
          text_array(filled), literal(order_.job)))) {
    return error;
  }
  if (auto error = expect_rows()) return error;
  if (auto error = set_indexes_aside(scene_)) return error;
  const auto began = clock::now();
  const auto before = progress_.rows;
  std::vector<source_snapshot> snapshots;
  for (const auto& stream : streams_) snapshots.push_back({stream->source(), stream->snapshot()});
  if (auto error = copy_rows(scene_, snapshots, [&](std::int64_t rows, std::int64_t bytes) {
        progress_.rows += rows;
        progress_.bytes += bytes;
        const std::int64_t done = progress_.rows - before;
        const std::int64_t ms = std::max<std::int64_t>(since(began), 1);
        progress_.rows_per_s = done * 1000 / ms;
        progress_.left_ms = done > 0 && progress_.rows_expected > done
                                ? (progress_.rows_expected - done) * ms / done : 0;
        tell();
        return watch_slots();
      })) {
    return error;
  }
  progress_.left_ms = 0;
  progress_.rows_per_s = (progress_.rows - before) * 1000 / std::max<std::int64_t>(since(began), 1);
  log::info("move", "{}: {} rows copied in {} ms", order_.job, progress_.rows - before,
            since(began));
  if (auto error = put_indexes_back(scene_, [this] { return watch_slots(); })) return error;
  for (const auto& stream : streams_) {
    if (const auto begun = stream->begin(); !begun) return begun.error();
  }
  return std::nullopt;
}

// For people: from what the servers believe their tables to hold.
trouble move_runner::expect_rows() {
  double expected = 0;
  for (const auto& [source, tables] : scene_.tables) {
    const auto owned = std::count(scene_.map.begin(), scene_.map.end(), source);
    const auto leaving = scene_.of_source(source).moving.size();
    for (const auto& one : tables) {
      const auto rows = one_value(scene_.link(source), fmt::format(
          "SELECT (CASE WHEN reltuples < 0 THEN pg_relation_size(oid) / 100 ELSE reltuples END)"
          "::bigint FROM pg_class WHERE oid = {}::regclass", literal(moving::in_sql(one))));
      if (!rows) return rows.error();
      const double all = rows->empty() ? 0 : static_cast<double>(std::stoll(*rows));
      expected += one.whole() || owned == 0
                      ? all : all * static_cast<double>(leaving) / static_cast<double>(owned);
    }
  }
  progress_.rows_expected = static_cast<std::int64_t>(expected);
  return std::nullopt;
}

// Foreign keys of the destination, while the streams go on: what a row refers to may still be on
// its way in the stream of another source.
trouble move_runner::validate() {
  for (int attempt = 0;; ++attempt) {
    auto validating = std::async(std::launch::async,
                                 [this] { return validate_references(scene_); });
    while (validating.wait_for(milliseconds(0)) != std::future_status::ready) {
      for (const auto& stream : streams_) {
        if (const auto done = stream->pump(milliseconds(5)); !done) return done.error();
      }
      if (auto error = watch_slots()) return error;
    }
    auto error = validating.get();
    if (!error) return std::nullopt;
    if (quit_) return pg_error{"57014", "the move was interrupted", {}, {}};
    if (error->sqlstate != "23503" || attempt == most_validations) return error;
    if (auto late = follow_to_marker(std::chrono::hours(1))) return late;
  }
}

// A slot that keeps too much log is given up before the disk of its server is full, or when the
// server has given it up itself. Looks now and then only.
trouble move_runner::watch_slots() {
  if (clock::now() - slots_seen_ < between_slot_looks) return std::nullopt;
  slots_seen_ = clock::now();
  for (const shard_number source : scene_.sources) {
    const auto rows = scene_.link(source).query(fmt::format(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, wal_status FROM "
        "pg_replication_slots WHERE slot_name = '{}'", scene_.slot(source)));
    if (!rows) return rows.error();
    const bool lost = rows->empty() || rows->front()[0].empty() || rows->front()[1] == "lost";
    if (!lost && std::stoll(rows->front()[0]) <= scene_.where.manner.slot_limit) continue;
    return pg_error{
        "53400",
        lost ? fmt::format("the slot of the move on shard {} was given up by its server "
                           "(max_slot_wal_keep_size) or dropped", source)
             : fmt::format("the slot of the move holds back {} bytes of log on shard {}, more than "
                           "resharding_slot_limit allows", rows->front()[0], source),
        "Move at a quieter time.", {}};
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
