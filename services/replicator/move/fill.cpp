// How a move_runner gets the rows to the destination before their changes are followed: the copy,
// indexes and foreign keys; and what it watches over.

#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "services/replicator/move/changes.hpp"
#include "services/replicator/move/copy.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/runner.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using std::chrono::milliseconds;

constexpr int most_validations = 20;
constexpr milliseconds between_slot_looks{2000};

}  // namespace

trouble move_runner::copy() {
  // Since the pre-flight: what is copied has to be all there is of a row under the snapshots.
  if (auto error = same_tables(scene_)) return error;
  copying_ = true;
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
    if (auto error = watch_slot(scene_.link(source), fmt::format("shard {}", source),
                                scene_.slot(source), scene_.where.manner.slot_limit)) {
      return error;
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
