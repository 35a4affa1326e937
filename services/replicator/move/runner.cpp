#include "services/replicator/move/runner.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <thread>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "common/management/together.hpp"
#include "services/replicator/move/changes.hpp"
#include "services/replicator/move/collisions.hpp"
#include "services/replicator/move/copy.hpp"
#include "services/replicator/move/flip.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/schema.hpp"
#include "services/replicator/move/sizes.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using moving::step;
using std::chrono::milliseconds;

constexpr std::int64_t fence_wait_ms = 5000;
constexpr milliseconds marker_wait{10'000};    // under the fence
constexpr milliseconds drain_wait{2000};       // under the fence, a shard
constexpr milliseconds near{500};              // a round of catching up that is short enough
constexpr std::size_t few_rows = 2000;         // that may be left to be compared under the fence
constexpr int most_comparisons = 20;

bool may_be_interrupted(step what) {
  return what == step::check || what == step::prepare || what == step::copy ||
         what == step::catch_up || what == step::compare || what == step::pause;
}

bool is_transient(step what, const pg_error& why) {
  if (what == step::begin) return why.sqlstate != "55006";
  if (what == step::take) return why.sqlstate != "55006" && why.sqlstate != "3D000";
  if (what == step::fence && why.sqlstate == "57P03") return true;   // a router that has just begun
  if (what == step::fence || what == step::verify || what == step::compare) {
    return why.sqlstate == "55P03";
  }
  // The fence did not last, or the commit took longer than it may.
  return what == step::flip && (why.sqlstate == "55006" || why.sqlstate == "40000");
}

}  // namespace

move_runner::move_runner(move_order order, std::string runner, asker ask, teller tell)
    : order_(std::move(order)), ask_(std::move(ask)), tell_(std::move(tell)) {
  scene_.job = order_.job;
  scene_.database = order_.database;
  scene_.runner = std::move(runner);
  scene_.stop = &quit_;
  progress_.job = order_.job;
  progress_.database = order_.database;
  progress_.outcome = "running";
  progress_.automatic = order_.automatic;
  progress_.only_tried = order_.resume;
  progress_.began = unix_ms();
}

void move_runner::abort() {
  aborted_ = true;
  if (interruptible_) quit_ = true;
}

void move_runner::stop() {
  stopped_ = true;
  quit_ = true;
}

std::int64_t move_runner::since(clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(clock::now() - begin).count();
}

void move_runner::tell() {
  note_slots();
  tell_(progress_);
}

void move_runner::note_slots() {
  std::vector<move_slot> slots;
  for (const auto& stream : streams_) {
    const auto& at = scene_.where.shards.at(stream->source());
    move_slot one{at.host, at.database, scene_.slot(stream->source()),
                  moving::lsn_to_text(stream->reached()), at.port, stream->behind(), unix_ms(),
                  job_.next() && job_.next()->what == step::copy};
    slots.push_back(std::move(one));
  }
  progress_.now_at(std::move(slots));
}

void move_runner::run() {
  if (order_.dry_run) {
    auto error = ask_where();
    if (!error) error = scene_.open_all();
    if (!error) error = check();
    progress_.outcome = error ? "failed" : "checked";
    if (error) progress_.because(*error);
    return tell();
  }
  while (!stopped_) {
    const auto next = job_.next();
    if (!next) break;
    wait(next->wait);
    if (!stopped_) play(next->what);
  }
  streams_.clear();
  scene_.links.clear();
  lock_.reset();
  if (!job_.over()) return;
  progress_.outcome = job_.done() ? "done" : aborted_ ? "aborted" : "failed";
  if (job_.reason() && job_.reason()->sqlstate == nothing_to_move) {
    progress_.outcome = "done";
    progress_.needless = true;
    progress_.warnings.push_back(job_.reason()->message);
  } else if (const auto& why = job_.reason()) {
    progress_.because(*why);
    progress_.detail = why->detail;
  }
  progress_.ended = unix_ms();
  if (progress_.only_tried) return tell();
  log::info("move", "{} of database \"{}\": {}{}{}", order_.job, order_.database,
            progress_.outcome, progress_.error.empty() ? "" : ": ", progress_.error);
  tell();
}

void move_runner::play(step what) {
  interruptible_ = may_be_interrupted(what);
  quit_ = stopped_.load() || (interruptible_ && aborted_);
  if (aborted_) job_.abort();
  progress_.step = name_of(what);
  tell();
  if (!progress_.only_tried) log::info("move", "{}: {}", order_.job, name_of(what));
  const auto bad = [&](const pg_error& why) {
    if (stopped_) return true;
    if (progress_.only_tried && why.sqlstate == "55006") return false;
    log::warn("move", "{}: {}: {} {}", order_.job, name_of(what), why.sqlstate, why.message);
    return false;
  };
  if (what == step::take) {
    auto found = moving::stored::nothing;
    if (auto error = take(found)) {
      if (!bad(*error)) job_.failed(*error, is_transient(what, *error));
    } else {
      job_ = moving::job(runs_);
      if (aborted_) job_.abort();
      job_.took(found);
    }
    return;
  }
  if (what == step::settle) {
    auto found = moving::stored::nothing;
    if (auto error = settle(found)) {
      if (!bad(*error)) job_.failed(*error);
    } else {
      job_.settled(found == moving::stored::flipped);
    }
    return;
  }
  if (what == step::flip) {
    const auto next = moving::with(scene_.map, scene_.moving, scene_.destination);
    const auto done = flip(scene_, scene_.where.epoch, next, fence_, true);
    if (done.what == flip_outcome::done) {
      scene_.map = next;
      return job_.succeeded();
    }
    if (bad(done.why)) return;
    if (done.what == flip_outcome::unknown) return job_.uncertain(done.why);
    return job_.failed(done.why, is_transient(what, done.why));
  }
  if (const auto error = perform(what)) {
    if (aborted_) job_.abort();
    if (!stopped_ && may_be_of_tables(what, *error)) {
      log::warn("move", "{}: {}: {}", order_.job, name_of(what), error->message);
      paused_by_ = *error;
      if (error->sqlstate == rewritten) paused_by_.reset();   // nothing has to be mended
      return job_.pause(*error, what == step::copy && copying_);
    }
    if (!bad(*error)) job_.failed(*error, is_transient(what, *error));
    return;
  }
  if (aborted_) job_.abort();
  if (what == step::drop && moving::next_of(scene_.map, scene_.goal)) {
    progress_.round = ++scene_.round;
    return job_.go_on();
  }
  job_.succeeded();
}

trouble move_runner::perform(step what) {
  switch (what) {
    case step::check: return check();
    case step::begin: return ask("begin");
    case step::record: return record();
    case step::refine: return refine();
    case step::prepare: return prepare();
    case step::copy: return copy();
    case step::catch_up: return catch_up();
    case step::compare: return compare();
    case step::fence: return fence();
    case step::verify: return verify();
    case step::lift: return let_go("lift");
    case step::end: return let_go("end");
    case step::undo: return undo();
    case step::flipped: {
      auto error = ask("flipped");
      if (!error && progress_.fence_ms == 0 && fenced_at_ != clock::time_point()) {
        progress_.fence_ms = since(fenced_at_);
      }
      return error;
    }
    case step::clean: return clean();
    case step::drop: return drop();
    case step::pause: return pause();
    case step::take:
    case step::flip:
    case step::settle: break;
  }
  return pg_error{"XX000", "no such step", {}, {}};
}

trouble move_runner::ask(const char* what, std::string* answer,
                         const std::vector<std::uint32_t>& buckets, std::int64_t wait_ms) {
  snapshot::move_request request;
  request.do_ = what;
  request.database = order_.database;
  request.job = order_.job;
  request.buckets = buckets;
  request.wait_ms = wait_ms;
  auto got = ask_(request, usual_answer + milliseconds(wait_ms));
  if (!got) return got.error();
  if (answer != nullptr) *answer = std::move(*got);
  return std::nullopt;
}

// What is not registered is neither fenced nor to be ended. A router that has just begun says so of
// everything until it has read the shards.
trouble move_runner::let_go(const char* what) {
  auto error = ask(what);
  if (!error || error->sqlstate != "55006") return error;
  if (auto unknown = ask_where()) return unknown;
  return scene_.where.moving == order_.job ? error : trouble();
}

trouble move_runner::check() {
  if (auto error = ask_where()) return error;
  if (auto error = plan()) return error;
  // The router stores the map on a new shard, and looks for commits there, soon after a RELOAD.
  for (const auto until = clock::now() + milliseconds(15'000); clock::now() < until && !quit_;) {
    bool all = true;
    for (auto& [shard, link] : scene_.links) {
      const auto ready = one_value(link, schema_is_there());
      if (!ready) return ready.error();
      all = all && *ready == "t";
    }
    if (all) break;
    wait(200);
  }
  auto report = check_move(scene_);
  if (!report) return report.error();
  if (auto found = find_collisions(scene_)) {
    report->missing.insert(report->missing.end(), found->begin(), found->end());
  } else if (report->missing.empty()) {
    return found.error();
  }
  if (report->no_schema && order_.dry_run) {
    report->warnings.push_back(fmt::format("shard {} has no tables; their definitions will be "
                                           "copied by pg_dump", scene_.destination));
  } else if (report->no_schema && report->missing.empty()) {
    log::info("move", "{}: copies the schema to shard {}", order_.job, scene_.destination);
    if (auto error = copy_schema(scene_, scene_.sources.front(), scene_.destination)) return error;
    report = check_move(scene_);
    if (!report) return report.error();
    if (report->no_schema) report->missing.push_back("the schema could not be copied");
  }
  if (report->missing.empty()) {
    auto coming = what_comes(scene_);
    if (!coming) return coming.error();
    progress_.coming = std::move(*coming);
  }
  progress_.log_limit = scene_.where.manner.slot_limit;
  progress_.missing = report->missing;
  progress_.warnings = report->warnings;
  tell();
  for (const auto& one : report->warnings) log::warn("move", "{}: {}", order_.job, one);
  return verdict(*report);
}

trouble move_runner::on_all(const std::string& sql) {
  for (auto& [shard, link] : scene_.links) {
    if (auto error = execute(link, sql)) return error;
  }
  return std::nullopt;
}

trouble move_runner::record() {
  if (auto error = on_all(job_schema())) return error;
  return on_all(fmt::format(
      "INSERT INTO pgsled.job (id, database, kind, shard, destination, sources, round, phase, "
      "runner, runs) VALUES ({0}, {1}, '{6}', {7}, {2}, '{{{8}}}', {9}, 'moving', {3}, {4}) "
      "ON CONFLICT (id) DO UPDATE SET destination = {2}, sources = '{{{8}}}', round = {9}, "
      "runs = {4}, buckets = 0, moving = '{{}}', phase = 'moving', given_up = false, "
      "changed_at = now() "
      "WHERE job.runner = {3}; {5}",
      literal(order_.job), literal(order_.database), scene_.destination, literal(scene_.runner),
      runs_, hold_job(scene_), moving::name_of(scene_.goal.kind),
      scene_.goal.kind == moving::goal_kind::rebalance ? scene_.destination : scene_.goal.shard,
      fmt::join(scene_.sources, ","), scene_.round));
}

trouble move_runner::ask_fence(const std::vector<std::uint32_t>& buckets) {
  std::string text;
  fenced_at_ = clock::now();
  ++progress_.fences;
  if (auto error = ask("fence", &text, buckets, fence_wait_ms)) return error;
  const auto got = snapshot::from_json<snapshot::move_answer>(text);
  if (!got) return got.error();
  fence_ = got->fence;
  return std::nullopt;
}

// More buckets, none of which moves: nobody has to be held back, but the new map is one, too.
trouble move_runner::refine() {
  const auto finer = scene_.map;
  if (finer != scene_.where.buckets) {
    if (auto error = ask_fence({})) return error;
    const auto done = flip(scene_, scene_.where.epoch, finer, fence_, false);
    if (done.what != flip_outcome::done) return done.why;
    if (auto error = ask("flipped")) return error;
    if (auto error = ask_where()) return error;
    if (scene_.map != finer) return pg_error{"XX000", "the router has another map", {}, {}};
  }
  return on_all(fmt::format("{}; UPDATE pgsled.job SET buckets = {}, moving = '{{{}}}' WHERE id = "
                            "{}", hold_job(scene_), scene_.map.size(),
                            fmt::join(scene_.moving, ","), literal(order_.job)));
}

trouble move_runner::prepare() {
  streams_.clear();
  compared_ = copying_ = false;
  for (const shard_number source : scene_.sources) {
    if (auto error = publish(scene_.link(source), scene_, scene_.tables[source],
                             [this] { return aborted_ || stopped_; })) {
      return error;
    }
  }
  for (const shard_number source : scene_.sources) {
    streams_.push_back(std::make_unique<move_stream>(scene_, source));
    if (const auto made = streams_.back()->make_slot(); !made) return made.error();
  }
  return std::nullopt;
}

// Into each source's log: what was committed before comes before it.
trouble move_runner::write_markers() {
  marker_ = fmt::format("{} {}", scene_.runner, ++markers_);
  return management::together(scene_.sources.size(), [this](std::size_t i) {
    return write_marker(scene_.link(scene_.sources[i]), marker_);
  });
}

// Applies what has come, of all streams side by side. Waits for something for at most `wait`, of a
// stream that is at the marker for at most `there`.
trouble move_runner::pump(milliseconds wait, milliseconds there) {
  if (auto error = management::together(streams_.size(), [&](std::size_t i) {
        const bool is_there = streams_[i]->last_marker() == marker_;
        const auto done = streams_[i]->pump(is_there ? there : wait);
        return done ? trouble() : trouble(done.error());
      })) {
    return error;
  }
  progress_.lag = progress_.changes = 0;
  for (const auto& stream : streams_) {
    progress_.lag += stream->behind();
    progress_.changes += stream->applied_rows();
  }
  tell();
  return std::nullopt;
}

// Applies everything up to new markers.
trouble move_runner::follow_to_marker(milliseconds patience) {
  const auto until = clock::now() + patience;
  if (auto error = write_markers()) return error;
  while (true) {
    if (auto error = pump(milliseconds(20), milliseconds(0))) return error;
    if (std::all_of(streams_.begin(), streams_.end(),
                    [this](const auto& one) { return one->last_marker() == marker_; })) {
      return std::nullopt;
    }
    if (quit_) return pg_error{"57014", "the move was interrupted", {}, {}};
    if (auto error = watch_slots()) return error;
    if (clock::now() > until) {
      return pg_error{"55P03", "the destination did not get up to date in time", {}, {}};
    }
  }
}

trouble move_runner::catch_up() {
  while (true) {
    const auto begin = clock::now();
    if (auto error = follow_to_marker(std::chrono::hours(24 * 30))) return error;
    if (clock::now() - begin < near) return std::nullopt;
  }
}

// All rows once, then those that were touched meanwhile, until few are left for the fence.
trouble move_runner::compare() {
  if (!compared_) {   // it may take long, for nothing
    if (auto error = same_tables(scene_)) return error;
  }
  for (int round = 0; round < most_comparisons; ++round) {
    std::size_t left = 0;
    bool all = !compared_;
    for (const auto& stream : streams_) {
      left += stream->touched().count;
      all = all || stream->touched().unknown;
    }
    if (!all && left <= few_rows) return validate();
    if (auto error = compare_once(all)) {
      compared_ = false;   // what it was to look at is not known any more
      return error;
    }
    compared_ = true;
  }
  return pg_error{"55P03", "rows change faster than they can be compared", {}, {}};
}

trouble move_runner::compare_once(bool all) {
  std::vector<std::unique_ptr<move_comparison>> under_way;
  for (const auto& stream : streams_) {
    under_way.push_back(std::make_unique<move_comparison>(scene_, *stream, all));
  }
  const auto go_on = [this]() -> trouble {
    if (auto error = pump(milliseconds(5), milliseconds(5))) return error;
    if (auto error = watch_slots()) return error;
    if (quit_) return pg_error{"57014", "the move was interrupted", {}, {}};
    return std::nullopt;
  };
  return finish_all(std::move(under_way), [this] { return write_markers(); }, go_on);
}

// Asks once what takes longest of what the sources are asked under the fence: its plans are made, and
// what is wrong already costs nobody a wait.
trouble move_runner::rehearse() {
  if (auto error = same_tables(scene_)) return error;
  const auto values = read_source_sequences();
  return values ? trouble() : trouble(values.error());
}

trouble move_runner::fence() {
  if (auto error = rehearse()) return error;
  if (auto error = ask_fence(scene_.moving)) return error;
  if (auto error = management::together(scene_.sources.size(), [this](std::size_t i) {
        const shard_number source = scene_.sources[i];
        return drain_source(scene_.link(source), fmt::format("shard {}", source), drain_wait);
      })) {
    return error;
  }
  return follow_to_marker(marker_wait);
}

// Under the fence both sides stand still. All was equal when it was compared; what has been touched
// since is compared now.
trouble move_runner::verify() {
  // A table that has come meanwhile would stay behind.
  if (auto error = same_tables(scene_)) return error;
  if (auto error = nothing_set_aside(scene_)) return error;
  if (auto error = management::together(streams_.size(), [this](std::size_t i) -> trouble {
        move_stream& stream = *streams_[i];
        const auto source = stream.source();
        const auto& touched = stream.touched();
        if (touched.unknown || !compared_) {
          return pg_error{"55P03", "too much was changed to be compared under the fence", {}, {}};
        }
        for (const auto& [place, rows] : touched.rows) {
          if (auto other = same_rows(scene_.link(source), stream.destination(),
                                     scene_.tables.at(source).at(place),
                                     scene_.of_source(source), source, &rows)) {
            return other;
          }
        }
        return std::nullopt;
      })) {
    return error;
  }
  return sequences();
}

result<sequence_values> move_runner::read_source_sequences() {
  std::vector<sequence_source> sources;
  for (const shard_number source : scene_.sources) {
    sources.emplace_back(source, &scene_.link(source));
  }
  return read_sequences(sources);
}

trouble move_runner::sequences() {
  const auto values = read_source_sequences();
  if (!values) return values.error();
  return carry_sequences(scene_.link(scene_.destination), *values,
                         {scene_.destination, scene_.destination_owns()});
}

}  // namespace pgsled::replicator
