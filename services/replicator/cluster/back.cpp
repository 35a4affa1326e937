// What a cluster_runner does after the name has changed hands: the stream from the new servers to
// the old ones, until the operator wants these back or does not want them any more; and what it
// takes away again.

#include <fmt/format.h>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "services/replicator/cluster/check.hpp"
#include "services/replicator/cluster/runner.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/pieces.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using moving::cluster_stored;
using std::chrono::milliseconds;

constexpr milliseconds rows_wait{3'600'000};
constexpr milliseconds a_moment{50};
constexpr milliseconds between_slot_looks{2000};
constexpr milliseconds surely_past{5000};
constexpr milliseconds lost_wait{20'000};      // for servers whose name is gone, to finish there, too
constexpr std::array both{cluster_side::old, cluster_side::fresh};

std::vector<std::string> column_of(const management::connection::rows& rows) {
  std::vector<std::string> all;
  for (const auto& row : rows) all.push_back(row.at(0));
  return all;
}

// Each slot of a server database whose name begins so.
trouble drop_slots(management::connection& link, const std::string& prefix) {
  const auto all = link.query(fmt::format(
      "SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, {}) AND database = "
      "current_database() AND NOT temporary", literal(prefix)));
  if (!all) return all.error();
  for (const auto& one : column_of(*all)) {
    if (auto error = drop_slot(link, one)) return error;
  }
  return std::nullopt;
}

trouble drop_origins(management::connection& link, const std::string& prefix) {
  return patiently(link, fmt::format("SELECT pg_replication_origin_drop(roname) FROM "
                                     "pg_replication_origin WHERE starts_with(roname, {})",
                                     literal(prefix)));
}

}  // namespace

trouble cluster_runner::flipped() {
  if (auto error = ask("flipped")) return error;
  if (fenced_at_ != clock::time_point()) {
    progress_.fence_ms =
        std::chrono::duration_cast<milliseconds>(clock::now() - fenced_at_).count();
    fenced_at_ = {};
  }
  forget_streams();
  auto error = scene_.on_all(fmt::format("UPDATE pgsled.job SET phase = 'flipped', changed_at = "
                                         "now() WHERE id = {} AND phase = 'moving'",
                                         literal(order_.job)));
  auto found = cluster_stored::nothing;
  if (error) (void)adopt_it(found);   // a server may have been restarted: the next try is another's
  return error;
}

trouble cluster_runner::reverse() {
  if (!flow_ || flow_->to() != cluster_side::old) {
    if (auto error = connect_again()) return error;
    if (auto error = drop_forward()) return error;
    flow_ = std::make_unique<cluster_flow>(scene_, cluster_side::old, [this] { return watch(); });
    if (auto error = flow_->resume()) return error;
  }
  const auto begun = clock::now();
  while (!finish_ && !roll_back_) {
    if (auto error = flow_->pump(a_moment)) return error;
    // Not at once: what has failed comes again first.
    if (!progress_.error.empty() && clock::now() - begun > surely_past) {
      progress_.sqlstate.clear();
      progress_.error.clear();
    }
    if (auto error = flow_->move_on()) return error;
    if (auto error = flow_->compare_if_much()) return error;
  }
  return std::nullopt;
}

// Shards may have other addresses by now. The slots of the way back are looked after even if the
// old servers are not there any more.
trouble cluster_runner::connect_again() {
  forget_streams();
  scene_.lost.reset();
  auto found = cluster_stored::nothing;
  auto error = ask_where(true);
  if (!error) error = adopt_it(found);
  if (error && !scene_.open_side(cluster_side::fresh)) {
    if (auto given_up = watch_back_slots()) return given_up;
  }
  if (error) return error;
  if (found != cluster_stored::flipped) {
    return pg_error{"XX000", "the new servers do not have the name", {}, {}};   // only a bug
  }
  scene_.make_scenes();
  const auto report = check_cluster(scene_, true);
  if (!report) return report.error();
  if (!report->missing.empty()) {
    return pg_error{"55000", "the way back cannot be followed: " + report->missing.front(), {}, {}};
  }
  return scene_.open_destinations(cluster_side::old);
}

// What the way there needed: nothing goes it any more.
trouble cluster_runner::drop_forward() {
  const auto prefix = "pgsled_" + order_.job + "_to";
  for (auto& link : scene_.side(cluster_side::old).links) {
    if (auto error = drop_slots(link, prefix)) return error;
  }
  for (auto& link : scene_.side(cluster_side::fresh).links) {
    if (auto error = drop_origins(link, prefix)) return error;
  }
  return std::nullopt;
}

// The servers that clients use must not run full for a way back that nobody can go.
trouble cluster_runner::watch_back_slots() {
  if (clock::now() - slots_seen_ < between_slot_looks) return std::nullopt;
  slots_seen_ = clock::now();
  auto& fresh = scene_.side(cluster_side::fresh);
  const auto limit = fresh.where.manner.slot_limit;
  const auto prefix = "pgsled_" + order_.job + "_back";
  for (std::size_t shard = 0; shard < fresh.links.size(); ++shard) {
    const auto all = fresh.links[shard].query(fmt::format(
        "SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, {}) AND NOT "
        "temporary AND database = current_database()", literal(prefix)));
    if (!all) return all.error();
    for (const auto& slot : column_of(*all)) {
      auto error = watch_slot(fresh.links[shard], fresh.label(shard), slot, limit);
      if (!error || error->sqlstate != "53400") {
        if (error) return error;
        continue;
      }
      for (auto& link : fresh.links) {
        if (auto kept = drop_slots(link, prefix)) return kept;
      }
      error->message += "; it was dropped, so there is no way back any more";
      error->hint = "Finish the job.";
      return error;
    }
  }
  return std::nullopt;
}

// The slots, origins, publication and identities of this job on one shard.
trouble cluster_runner::drop_tools(cluster_side of, std::size_t shard) {
  auto& link = scene_.side(of).links[shard];
  const auto prefix = "pgsled_" + order_.job + "_";
  if (auto error = drop_slots(link, prefix)) return error;
  if (auto error = drop_origins(link, prefix)) return error;
  const auto there = has_jobs(link);
  if (!there) return there.error();
  if (!*there) return std::nullopt;   // nothing is done before it is recorded
  if (auto error = execute(link, fmt::format(
          "DROP PUBLICATION IF EXISTS pgsled_{}; DELETE FROM pgsled.job_waiting WHERE job = {}",
          order_.job, literal(order_.job)))) {
    return error;
  }
  move_scene held;
  held.job = order_.job;
  held.runner = scene_.runner;
  return restore_identities(link, held);
}

// Rows that this job has put on a new server, and what was set aside there for them.
trouble cluster_runner::empty_again(std::size_t shard) {
  move_scene one;
  one.job = order_.job;
  one.runner = scene_.runner;
  one.stop = &quit_;
  one.where = scene_.side(cluster_side::fresh).where;
  auto patient = one.open(static_cast<shard_number>(shard), rows_wait);   // large indexes
  if (!patient) return patient.error();
  const auto there = has_jobs(*patient);
  if (!there) return there.error();
  if (!*there) return std::nullopt;
  if (auto error = delete_filled(*patient, one, [this]() -> trouble {
        if (stopped_) return pg_error{"57P01", "the process ends", {}, {}};
        return std::nullopt;
      })) {
    return error;
  }
  return restore_indexes(one, *patient);
}

trouble cluster_runner::undo() {
  auto found = cluster_stored::nothing;
  scene_.registered = order_.job;
  if (auto error = adopt_it(found)) return error;
  if (found != cluster_stored::moving && found != cluster_stored::given_up) {
    return pg_error{"XX000", "the move is past its flip", {}, {}};   // only a bug
  }
  const auto mark = [this]() -> trouble {
    for (const auto of : both) {
      for (auto& link : scene_.side(of).links) {
        const auto there = has_jobs(link);
        if (!there) return there.error();
        if (!*there) continue;
        if (auto error = execute(link, fmt::format(
                "UPDATE pgsled.job SET phase = 'undone', changed_at = now() WHERE id = {}",
                literal(order_.job)))) {
          return error;
        }
      }
    }
    return std::nullopt;
  };
  // One that is given up is not begun again by whoever comes next.
  if (job_.reason()) {
    if (auto error = mark()) return error;
  }
  for (const auto of : both) {   // slots first: they hold back the log of their servers
    for (std::size_t shard = 0; shard < scene_.side(of).links.size(); ++shard) {
      if (auto error = drop_tools(of, shard)) return error;
    }
  }
  for (std::size_t shard = 0; shard < scene_.side(cluster_side::fresh).links.size(); ++shard) {
    if (auto error = empty_again(shard)) return error;
  }
  progress_.rows = progress_.bytes = progress_.changes = progress_.lag = 0;
  return mark();
}

// The rows stay on both sides: those that clients do not use any more are the operator's. Servers
// that are lost do not keep a job from its end; when they come back the router finds the job there,
// and what it has left there is removed.
trouble cluster_runner::finish() {
  auto found = cluster_stored::nothing;
  if (finishing_ == clock::time_point()) finishing_ = clock::now();
  scene_.lost.reset();
  (void)ask_where();   // shards may have other addresses by now
  scene_.registered = order_.job;
  if (auto error = adopt_it(found)) {
    if (stopped_ || lost_ || clock::now() - finishing_ < lost_wait) return error;
    if (!adopt_without_other(found)) return error;
    progress_.warnings.push_back(fmt::format(
        "the servers that have the name \"{0}\" now are not reached ({1}): what this move has made "
        "there (slots, origins and the publication pgsled_{2}*, REPLICA IDENTITY FULL, its row in "
        "pgsled.job) is still there, and will be removed when they are reached again while \"{0}\" "
        "is in the file", order_.to, error->message, order_.job));
    log::warn("move", "{}: {}", order_.job, progress_.warnings.back());
  }
  if (found != cluster_stored::flipped && found != cluster_stored::kept &&
      found != cluster_stored::returned) {
    return pg_error{"XX000", "the move is not past its flip", {}, {}};   // only a bug
  }
  if (auto error = scene_.on_all(fmt::format(
          "SET LOCAL synchronous_commit = on; UPDATE pgsled.job SET phase = 'done', "
          "changed_at = now() WHERE id = {}", literal(order_.job)))) {
    return error;
  }
  for (const auto of : {cluster_side::fresh, cluster_side::old}) {
    for (std::size_t shard = 0; shard < scene_.side(of).links.size(); ++shard) {
      if (auto error = drop_tools(of, shard)) return error;
    }
  }
  return scene_.on_all(fmt::format("UPDATE pgsled.job SET filled = '{{}}' WHERE id = {}",
                                   literal(order_.job)));
}

}  // namespace pgsled::replicator
