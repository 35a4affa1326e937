// How a cluster_runner gets a database to the new servers: pre-flight, definitions, the copy, and
// the cutover up to the point where the name changes hands.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <future>
#include <thread>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "common/management/together.hpp"
#include "services/replicator/cluster/check.hpp"
#include "services/replicator/cluster/runner.hpp"
#include "services/replicator/move/collisions.hpp"
#include "services/replicator/move/copy.hpp"
#include "services/replicator/move/indexes.hpp"
#include "services/replicator/move/schema.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using std::chrono::milliseconds;

constexpr std::int64_t fence_wait_ms = 5000;
constexpr milliseconds marker_wait{10'000};    // under the fence
constexpr milliseconds drain_wait{2000};       // under the fence, a shard
constexpr milliseconds slot_wait{600'000};     // a slot waits for old transactions
constexpr milliseconds a_moment{50};
constexpr std::size_t most_named = 20;         // definitions, in a message

// What each of several servers says, all asked at once.
template <class Value>
result<std::vector<Value>> of_each(std::vector<management::connection>& links,
                                   result<Value> (*read)(management::connection&)) {
  std::vector<Value> all(links.size());
  if (auto error = management::together(links.size(), [&](std::size_t i) -> trouble {
        auto got = read(links[i]);
        if (!got) return got.error();
        all[i] = std::move(*got);
        return std::nullopt;
      })) {
    return tl::unexpected(std::move(*error));
  }
  return all;
}

}  // namespace

trouble cluster_runner::check() {
  if (!order_.dry_run && !order_.only_schema) {
    if (auto error = ask_where()) return error;
  }
  scene_.make_scenes();
  auto defined = read_old_definitions();
  if (!defined) return defined.error();
  defined_ = std::move(*defined);
  auto report = check_cluster(scene_, false);
  if (!report) return report.error();
  if (report->no_schema && order_.dry_run) {
    report->warnings.push_back(fmt::format("database \"{}\" has no tables; their definitions will "
                                           "be copied by pg_dump", order_.to));
  } else if (report->no_schema && report->missing.empty()) {
    if (auto error = copy_schemas(*report)) return error;
  }
  if (report->missing.empty()) {
    if (auto error = collisions(*report)) return error;
  }
  progress_.missing = report->missing;
  progress_.warnings = report->warnings;
  tell();
  for (const auto& one : report->warnings) log::warn("move", "{}: {}", order_.job, one);
  return verdict(*report);
}

// Rows of several old shards that will be on one new one.
trouble cluster_runner::collisions(move_report& report) {
  if (scene_.side(cluster_side::old).links.size() == 1) return std::nullopt;
  for (const auto& one : scene_.side(cluster_side::fresh).gets) {
    auto found = find_collisions(*one);
    if (!found) return found.error();
    for (auto& text : *found) report.missing.push_back(std::move(text));
  }
  return std::nullopt;
}

trouble cluster_runner::copy_schemas(move_report& report) {
  log::info("move", "{}: copies the schema to database \"{}\"", order_.job, order_.to);
  for (auto& one : scene_.side(cluster_side::fresh).gets) {
    auto link = one->open(0, std::chrono::seconds(120));
    if (!link) return link.error();
    one->links.emplace(0, std::move(*link));
    auto error = copy_schema(*one, 0, one->destination);
    one->links.erase(0);
    if (error) return error;
  }
  auto again = check_cluster(scene_, false);
  if (!again) return again.error();
  if (again->no_schema) again->missing.push_back("the schema could not be copied");
  report = std::move(*again);
  return std::nullopt;
}

trouble cluster_runner::prepare() {
  flow_.reset();
  if (auto error = scene_.open_destinations(cluster_side::fresh)) return error;
  auto& old = scene_.side(cluster_side::old);
  const auto& any = *scene_.side(cluster_side::fresh).gets.front();
  for (std::size_t shard = 0; shard < old.links.size(); ++shard) {
    const auto tables = any.tables.find(static_cast<shard_number>(shard));
    if (auto error = publish(old.links[shard], any,
                             tables == any.tables.end() ? std::vector<moving::table>()
                                                        : tables->second,
                             [this] { return aborted_ || stopped_; })) {
      return error;
    }
  }
  flow_ = std::make_unique<cluster_flow>(scene_, cluster_side::fresh, [this] { return watch(); });
  return flow_->make_slots();
}

// For people: from what the servers believe their tables to hold.
trouble cluster_runner::expect_rows() {
  double expected = 0;
  auto& old = scene_.side(cluster_side::old);
  const auto& there = scene_.side(cluster_side::fresh).gets;
  for (const auto& [source, tables] : there.front()->tables) {
    for (const auto& one : tables) {
      const auto rows = one_value(old.links[source], fmt::format(
          "SELECT (CASE WHEN reltuples < 0 THEN pg_relation_size(oid) / 100 ELSE reltuples END)"
          "::bigint FROM pg_class WHERE oid = {}::regclass", literal(moving::in_sql(one))));
      if (!rows) return rows.error();
      const double all = rows->empty() ? 0 : static_cast<double>(std::stoll(*rows));
      expected += one.whole() ? all * static_cast<double>(there.size()) : all;
    }
  }
  progress_.rows_expected = static_cast<std::int64_t>(expected);
  return std::nullopt;
}

trouble cluster_runner::copy() {
  if (auto error = expect_rows()) return error;
  const auto before = progress_.rows;
  clock::duration copying{};           // without the indexes in between
  auto began = clock::now();
  const auto since = [&] {
    return std::max<std::int64_t>(
        std::chrono::duration_cast<milliseconds>(copying + (clock::now() - began)).count(), 1);
  };
  auto& there = scene_.side(cluster_side::fresh).gets;
  for (std::size_t d = 0; d < there.size(); ++d) {
    move_scene& one = *there[d];
    std::vector<std::string> filled;
    for (const auto& [source, tables] : one.tables) {
      for (const auto& table : tables) {
        auto name = moving::in_sql(table);
        if (std::find(filled.begin(), filled.end(), name) == filled.end()) filled.push_back(name);
      }
    }
    if (auto error = execute(one.link(one.destination), fmt::format(
            "{}; UPDATE pgsled.job SET filled = {} WHERE id = {}", hold_job(one),
            text_array(filled), literal(order_.job)))) {
      return error;
    }
    if (auto error = set_indexes_aside(one)) return error;
    began = clock::now();
    if (auto error = copy_rows(one, flow_->snapshots(d), [&](std::int64_t rows,
                                                             std::int64_t bytes) {
          progress_.rows += rows;
          progress_.bytes += bytes;
          const std::int64_t done = progress_.rows - before, ms = since();
          progress_.rows_per_s = done * 1000 / ms;
          progress_.left_ms = done > 0 && progress_.rows_expected > done
                                  ? (progress_.rows_expected - done) * ms / done : 0;
          return watch();
        })) {
      return error;
    }
    progress_.rows_per_s = (progress_.rows - before) * 1000 / since();
    copying += clock::now() - began;
    auto error = put_indexes_back(one, [this] { return watch(); });
    if (error && error->sqlstate == "23505") {
      const auto some = flow_->set_doubles_aside(d);
      if (!some) return some.error();
      if (*some) error = put_indexes_back(one, [this] { return watch(); });
    }
    if (error) return error;
  }
  progress_.left_ms = 0;
  log::info("move", "{}: {} rows copied in {} ms", order_.job, progress_.rows - before,
            std::chrono::duration_cast<milliseconds>(copying).count());
  return flow_->begin();
}

result<std::vector<definitions>> cluster_runner::read_old_definitions() {
  return of_each(scene_.side(cluster_side::old).links, read_definitions);
}

// Whether nothing was touched since they were read in ready(): under the fence there is no time.
result<bool> cluster_runner::untouched() {
  auto now = of_each(scene_.side(cluster_side::old).links, definitions_stamp);
  if (!now) return tl::unexpected(now.error());
  const auto before = std::exchange(stamps_, std::move(*now));
  return before == stamps_;
}

result<std::string> cluster_runner::redefined(bool seen_to) {
  const auto same = untouched();
  if (!same) return tl::unexpected(same.error());
  if (!seen_to && *same) return std::string();
  auto now = read_old_definitions();
  if (!now) return tl::unexpected(now.error());
  const auto before = seen_to ? std::exchange(defined_, *now) : defined_;
  const auto& old = scene_.side(cluster_side::old);
  for (std::size_t shard = 0; shard < old.links.size(); ++shard) {
    auto all = differences(before.at(shard), now->at(shard));
    if (all.empty()) continue;
    const auto more = all.size() > most_named ? all.size() - most_named : 0;
    all.resize(all.size() - more);
    return fmt::format("definitions on {} are others than when the move began: {}{}",
                       old.label(shard), fmt::join(all, ", "),
                       more > 0 ? fmt::format(" and {} more", more) : std::string());
  }
  return std::string();
}

// The operator is to see to it, and to say so.
void cluster_runner::not_yet(const std::string& why, const std::string& hint) {
  cut_over_ = scene_.automatic_cutover = false;
  progress_.because({"55000", why, hint, {}});
  log::warn("move", "{}: {}", order_.job, progress_.error);
  tell();
}

// Until told to cut over; then as near as can be before anybody has to wait. What was defined
// otherwise meanwhile, past pgsled, is not on the new servers: somebody has to see to that first.
trouble cluster_runner::ready() {
  while (true) {
    while (!cut_over_ && !scene_.automatic_cutover) {
      if (auto error = flow_->pump(a_moment)) return error;
      if (auto error = flow_->move_on()) return error;
      if (auto error = flow_->compare_if_much()) return error;
    }
    const auto others = redefined(true);
    if (!others) return others.error();
    if (!others->empty()) {
      not_yet(*others, fmt::format("Do the same on the servers of \"{}\" if clients need it, then: "
                                   "pgsled reshard cutover {}", order_.to, order_.job));
      continue;
    }
    // Under the fence it would be too late: everything would be undone.
    const auto tables = same_cluster_tables(scene_);
    if (!tables) break;
    if (tables->sqlstate != "55000") return tables;
    not_yet(tables->message, fmt::format(
        "Their rows are not followed. Take it back on the servers of \"{0}\", then: pgsled reshard "
        "cutover {1}; or begin again: pgsled reshard abort {1}", order_.database, order_.job));
  }
  progress_.sqlstate.clear();
  progress_.error.clear();
  if (auto error = flow_->catch_up()) return error;
  if (auto error = flow_->compare()) return error;
  const auto enough = scene_.side(cluster_side::old).where.manner.traffic_stop_threshold;
  while (flow_->behind() > enough) {
    if (auto error = flow_->follow_to_marker(std::chrono::hours(24))) return error;
  }
  return std::nullopt;
}

// Slots on the new servers from before the first client writes there. What is applied to them until
// then carries an origin, by which the way back leaves it out.
trouble cluster_runner::back() {
  auto& fresh = scene_.side(cluster_side::fresh);
  const auto& any = *scene_.side(cluster_side::old).gets.front();
  for (std::size_t shard = 0; shard < fresh.links.size(); ++shard) {
    const auto there = one_value(fresh.links[shard], fmt::format(
        "SELECT count(*) FROM pg_publication WHERE pubname = '{}'", any.publication()));
    if (!there) return there.error();
    const auto tables = any.tables.find(static_cast<shard_number>(shard));
    if (*there == "0") {
      if (auto error = publish(fresh.links[shard], any,
                               tables == any.tables.end() ? std::vector<moving::table>()
                                                          : tables->second,
                               [this] { return aborted_ || stopped_; })) {
        return error;
      }
    }
  }
  // A slot waits for transactions that are older, also such that the streams have begun.
  auto making = std::async(std::launch::async, [this] { return make_back_slots(); });
  trouble late;
  while (making.wait_for(milliseconds(0)) != std::future_status::ready) {
    if (!late) late = flow_->pump(a_moment);
    if (late) {
      quit_ = true;
      std::this_thread::sleep_for(a_moment);
    }
  }
  auto error = making.get();
  return late ? late : error;
}

trouble cluster_runner::make_back_slots() {
  const auto& fresh = scene_.side(cluster_side::fresh);
  for (const auto& one : scene_.side(cluster_side::old).gets) {
    auto there = one->open(one->destination, slot_wait);
    if (!there) return there.error();
    for (shard_number source = 0; source < fresh.where.shards.size(); ++source) {
      const auto name = one->slot(source);
      if (auto error = execute(*there, fmt::format(
              "SELECT pg_replication_origin_create('{0}') WHERE NOT EXISTS (SELECT FROM "
              "pg_replication_origin WHERE roname = '{0}')", name))) {
        return error;
      }
      auto here = one->open(source, slot_wait);
      if (!here) return here.error();
      if (auto error = execute(*here, fmt::format(
              "SELECT pg_create_logical_replication_slot('{0}', 'pgoutput') WHERE NOT EXISTS "
              "(SELECT FROM pg_replication_slots WHERE slot_name = '{0}')", name))) {
        return error;
      }
    }
  }
  return std::nullopt;
}

trouble cluster_runner::fence() {
  std::string text;
  fenced_at_ = clock::now();
  ++progress_.fences;
  if (auto error = ask("fence", &text, fence_wait_ms)) return error;
  const auto got = snapshot::from_json<snapshot::move_answer>(text);
  if (!got) return got.error();
  fence_ = got->fence;
  if (auto error = flow_->drain(drain_wait)) return error;
  const auto patience = scene_.side(cluster_side::old).where.manner.timeout;
  return flow_->follow_to_marker(patience > 0 ? std::min(marker_wait, milliseconds(patience))
                                              : marker_wait);
}

trouble cluster_runner::verify() {
  if (!job_.on_the_way_back()) {
    const auto others = redefined(false);
    if (!others) return others.error();
    if (!others->empty()) return pg_error{"55P03", *others, {}, {}};   // ready says so, and waits
  }
  if (auto error = flow_->verify()) return error;
  if (auto error = flow_->sequences()) return error;
  return flow_->flush();
}

}  // namespace pgsled::replicator
