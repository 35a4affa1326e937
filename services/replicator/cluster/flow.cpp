#include "services/replicator/cluster/flow.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <thread>
#include <utility>

#include "common/commit/statements.hpp"
#include "common/management/together.hpp"
#include "services/replicator/cluster/check.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/sequences.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using std::chrono::milliseconds;

constexpr milliseconds near{500};              // a round of catching up that is short enough
constexpr milliseconds between_signs{5000};    // while nothing is waited for
constexpr milliseconds a_round{20};            // of waiting, all streams together
constexpr std::size_t few_rows = 2000;         // that may be left to be compared under the fence
constexpr std::size_t enough_rows = 20'000;    // the same, when it does not become less
constexpr int few_rounds = 4;
constexpr std::size_t many_rows = 50'000;      // that are touched, before they are compared
constexpr int most_comparisons = 20;
constexpr int most_validations = 20;

}  // namespace

cluster_flow::cluster_flow(cluster_scene& scene, cluster_side to, std::function<trouble()> watch)
    : scene_(scene), to_(to), watch_(std::move(watch)) {}

std::int64_t cluster_flow::waited() const {
  std::uint64_t all = 0;
  for (const auto& [destination, stream] : streams_) all += stream->waiting().ever();
  return static_cast<std::int64_t>(all);
}

void cluster_flow::add_streams() {
  streams_.clear();
  for (std::size_t d = 0; d < scene_.side(to_).gets.size(); ++d) {
    for (const shard_number source : scene(d).sources) {
      streams_.push_back({d, std::make_unique<move_stream>(scene(d), source)});
    }
  }
}

trouble cluster_flow::make_slots() {
  add_streams();
  for (const auto& [destination, stream] : streams_) {
    if (const auto made = stream->make_slot(); !made) return made.error();
    if (auto error = watch_()) return error;
  }
  return std::nullopt;
}

trouble cluster_flow::resume() {
  add_streams();
  for (const auto& [destination, stream] : streams_) {
    if (const auto there = stream->resume(); !there) return there.error();
  }
  return begin();
}

trouble cluster_flow::begin() {
  for (const auto& [destination, stream] : streams_) {
    if (const auto begun = stream->begin(); !begun) return begun.error();
  }
  return std::nullopt;
}

std::vector<source_snapshot> cluster_flow::snapshots(std::size_t of) const {
  std::vector<source_snapshot> all;
  for (const auto& [destination, stream] : streams_) {
    if (destination == of) all.push_back({stream->source(), stream->snapshot()});
  }
  return all;
}

std::int64_t cluster_flow::behind() const {
  std::int64_t most = 0;
  for (const auto& [destination, stream] : streams_) most = std::max(most, stream->behind());
  return most;
}

std::int64_t cluster_flow::changes() const {
  std::int64_t all = 0;
  for (const auto& [destination, stream] : streams_) all += stream->applied_rows();
  return all;
}

trouble cluster_flow::pump(milliseconds wait) {
  const auto each = wait / static_cast<int>(std::max<std::size_t>(streams_.size(), 1));
  for (const auto& [destination, stream] : streams_) {
    if (const auto done = stream->pump(each); !done) return done.error();
  }
  return watch_();
}

trouble cluster_flow::write_markers() {
  marked_ = clock::now();
  marker_ = fmt::format("{} {}", scene_.runner, ++markers_);
  auto& links = scene_.side(from()).links;
  return management::together(links.size(), [&](std::size_t shard) {
    return write_marker(links[shard], marker_);
  });
}

trouble cluster_flow::move_on() {
  return clock::now() - marked_ < between_signs ? trouble() : write_markers();
}

trouble cluster_flow::follow_to_marker(milliseconds patience) {
  const auto until = clock::now() + patience;
  if (auto error = write_markers()) return error;
  while (true) {
    const bool all = std::all_of(streams_.begin(), streams_.end(), [&](const auto& one) {
      return one.stream->last_marker() == marker_;
    });
    if (all) return std::nullopt;
    if (auto error = pump(a_round)) return error;
    if (clock::now() > until) {
      return pg_error{"55P03", "the destination did not get up to date in time", {}, {}};
    }
  }
}

trouble cluster_flow::catch_up() {
  while (true) {
    const auto begin = clock::now();
    if (auto error = follow_to_marker(std::chrono::hours(24 * 30))) return error;
    if (clock::now() - begin < near) return std::nullopt;
  }
}

trouble cluster_flow::compare() {
  for (int round = 0; round < most_comparisons; ++round) {
    std::size_t left = 0;
    bool all = !compared_;
    for (const auto& [destination, stream] : streams_) {
      left += stream->touched().count;
      all = all || stream->touched().unknown;
    }
    // Where much is written all the time there is always some left.
    if (!all && left <= (round < few_rounds ? few_rows : enough_rows)) return std::nullopt;
    if (auto error = compare_once(all)) return error;
    compared_ = true;
  }
  return pg_error{"55P03", "rows change faster than they can be compared", {}, {}};
}

trouble cluster_flow::compare_if_much() {
  std::size_t left = 0;
  bool all = false;
  for (const auto& [destination, stream] : streams_) {
    left += stream->touched().count;
    all = all || stream->touched().unknown;
  }
  if (!compared_ || all) return std::nullopt;   // a comparison of all comes before the fence
  return left <= many_rows ? trouble() : compare_once(false);
}

// Some shards at once: each needs a slot more on every source.
trouble cluster_flow::compare_once(bool all) {
  const auto shards = scene_.side(to_).gets.size();
  for (std::size_t first = 0; first < shards; first += compared_at_once) {
    if (auto error = compare_some(first, std::min(first + compared_at_once, shards), all)) {
      return error;
    }
  }
  return std::nullopt;
}

trouble cluster_flow::compare_some(std::size_t first, std::size_t end, bool all) {
  std::vector<std::unique_ptr<cluster_comparison>> under_way;
  for (std::size_t d = first; d < end; ++d) {
    std::vector<move_stream*> mine;
    for (const auto& [destination, stream] : streams_) {
      if (destination == d) mine.push_back(stream.get());
    }
    under_way.push_back(std::make_unique<cluster_comparison>(scene(d), std::move(mine), all));
  }
  return finish_all(std::move(under_way), [this] { return write_markers(); },
                    [this] { return pump(a_round); });
}

trouble cluster_flow::drain(milliseconds patience) {
  auto& here = scene_.side(from());
  return management::together(here.links.size(), [&](std::size_t shard) {
    return drain_source(here.links[shard], here.label(shard), patience);
  });
}

trouble cluster_flow::verify() {
  if (auto error = place_all()) return error;
  // A table that has come meanwhile would stay behind.
  if (auto error = same_cluster_tables(scene_)) return error;
  std::vector<management::connection*> sources;
  for (auto& link : scene_.side(from()).links) sources.push_back(&link);
  for (std::size_t d = 0; d < scene_.side(to_).gets.size(); ++d) {
    if (auto error = nothing_set_aside(scene(d))) return error;
    rows_of_tables touched;
    bool known = compared_;
    for (const auto& [destination, stream] : streams_) {
      if (destination != d) continue;
      known = known && gather_touched(scene(d), stream->source(), stream->touched(), touched);
    }
    if (!known) {
      return pg_error{"55P03", "too much was changed to be compared under the fence", {}, {}};
    }
    auto& there = scene(d).link(scene(d).destination);
    if (auto error = same_together(scene(d), sources, there, &touched)) return error;
  }
  return std::nullopt;
}

// All streams have come to the end. What has no place now has none at all.
trouble cluster_flow::place_all() {
  std::size_t left = 0, before = 0;
  do {
    before = std::exchange(left, std::size_t{0});
    for (const auto& [destination, stream] : streams_) {
      if (const auto given = stream->give_places(true); !given) return given.error();
      left += stream->waiting().all().size();
    }
  } while (left > 0 && (before == 0 || left < before));
  for (const auto& [destination, stream] : streams_) {
    const auto& waiting = stream->waiting().all();
    if (waiting.empty()) continue;
    const auto& [table, known_by] = waiting.begin()->first;
    return pg_error{
        "23505", fmt::format("table {}: the row with {} of {} is equal in a unique key to one of "
                             "another shard, and both would be on {}; {} rows have no place",
                             scene(destination).tables.at(stream->source()).at(table).label(),
                             known_by, scene_.side(from()).label(stream->source()),
                             scene_.side(to_).label(destination), left),
        "Change or delete one of them.", {}};
  }
  return std::nullopt;
}

// Several shards that count alike would give out the same values.
trouble cluster_flow::sequences() {
  std::vector<sequence_source> sources;
  for (auto& link : scene_.side(from()).links) {
    sources.emplace_back(static_cast<shard_number>(sources.size()), &link);
  }
  const auto values = read_sequences(sources);
  if (!values) return values.error();
  auto& there = scene_.side(to_).gets;
  return management::together(there.size(), [&](std::size_t d) {
    const sequence_manner how{static_cast<shard_number>(d), false,
                              to_ == cluster_side::fresh && there.size() > 1};
    return carry_sequences(there[d]->link(there[d]->destination), *values, how);
  });
}

trouble cluster_flow::flush() {
  auto& there = scene_.side(to_).gets;
  return management::together(there.size(), [&](std::size_t d) {
    return execute(there[d]->link(there[d]->destination), fmt::format(
        "{}; SET LOCAL synchronous_commit = on; UPDATE pgsled.job SET changed_at = now() "
        "WHERE id = {}", hold_job(*there[d]), literal(scene_.job)));
  });
}

// What a row refers to may still be on its way in the stream of another source.
trouble cluster_flow::validate() {
  for (auto& one : scene_.side(to_).gets) {
    for (int attempt = 0;; ++attempt) {
      auto validating = std::async(std::launch::async,
                                   [&] { return validate_references(*one); });
      trouble late;
      while (validating.wait_for(milliseconds(0)) != std::future_status::ready) {
        if (!late) late = pump(a_round);
        if (late) std::this_thread::sleep_for(a_round);
      }
      auto error = validating.get();
      if (late) return late;
      if (!error) break;
      if (error->sqlstate != "23503" || attempt == most_validations) return error;
      if (auto behind = follow_to_marker(std::chrono::hours(1))) return behind;
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
