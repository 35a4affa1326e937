// Which move it is, and that it is this runner's: planned anew, or taken over as the shards have it.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "common/commit/statements.hpp"
#include "services/replicator/move/runner.hpp"

namespace pgsled::replicator {

using commit::statements::literal;

namespace {

// Of a list "1,2"; what is none ends it.
std::vector<std::uint32_t> numbers(std::string_view text) {
  std::vector<std::uint32_t> to;
  while (!text.empty()) {
    std::uint32_t one = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), one);
    if (ec != std::errc()) break;
    to.push_back(one);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.empty()) text.remove_prefix(1);
  }
  return to;
}

}  // namespace

trouble move_runner::ask_where() {
  std::string text;
  if (auto error = ask("where", &text)) return error;
  auto got = snapshot::from_json<snapshot::move_where>(text);
  if (!got) return got.error();
  const auto last = std::max_element(got->buckets.begin(), got->buckets.end());
  if (got->buckets.empty() || got->buckets.size() > moving::max_buckets || got->shards.empty() ||
      *last >= got->shards.size()) {
    return pg_error{"57P03", "the shard map is not known yet", {}, {}};
  }
  scene_.where = std::move(*got);
  scene_.map = scene_.where.buckets;
  return std::nullopt;
}

// A shard that was emptied on purpose says so itself: it is not given rows again by mistake.
trouble move_runner::choose_goal() {
  scene_.goal = {order_.kind, order_.shard.value_or(0)};
  const std::set<std::uint32_t> owners(scene_.map.begin(), scene_.map.end());
  std::string emptied;
  const bool any = order_.kind == moving::goal_kind::add_shard && !order_.shard;
  for (shard_number shard = 0; any && shard < scene_.where.shards.size(); ++shard) {
    if (owners.contains(shard)) continue;
    const auto knows = one_value(scene_.link(shard), job_columns());
    if (!knows) return knows.error();
    std::string last;
    if (*knows == "t") {
      const auto stored = one_value(scene_.link(shard), fmt::format(
          "SELECT kind FROM pgsled.job WHERE database = {} AND shard = {} AND phase = 'done' AND "
          "kind <> 'rebalance' ORDER BY changed_at DESC LIMIT 1", literal(order_.database), shard));
      if (!stored) return stored.error();
      last = *stored;
    }
    if (last != moving::name_of(moving::goal_kind::remove_shard)) {
      scene_.goal.shard = shard;
      goal_known_ = true;
      return std::nullopt;
    }
    emptied = fmt::format("; shard {0} was emptied by remove-shard: name it, --shard {0}", shard);
  }
  if (any) {
    return pg_error{order_.automatic ? nothing_to_move : "55000",
                    fmt::format("no shard of database \"{}\" is joining{}", order_.database,
                                emptied), "Add the new shard to pgdog.toml and RELOAD.", {}};
  }
  goal_known_ = true;
  return std::nullopt;
}

// Which buckets go where next, in a map of enough buckets: refine() makes that the stored one.
trouble move_runner::plan() {
  if (!goal_known_) {
    if (auto error = choose_goal()) return error;
  }
  const auto shards = scene_.where.shards.size();
  if (auto why = moving::objection(scene_.map, shards, scene_.goal)) return why;
  const auto finer = moving::refined(scene_.map, moving::owners_after(scene_.map, scene_.goal));
  auto next = moving::next_of(finer, scene_.goal);
  progress_.goal = moving::in_words(scene_.goal);
  if (const auto there = mapped_there(scene_); !next && !there.empty()) {
    return pg_error{"55000", there.front(), {}, {}};
  }
  if (!next) {
    return pg_error{nothing_to_move, fmt::format("nothing has to move: {} is reached already",
                                                 progress_.goal), {}, {}};
  }
  scene_.map = finer;
  scene_.destination = next->destination;
  scene_.sources = moving::owners_of(finer, next->buckets);
  scene_.moving = std::move(next->buckets);
  progress_.destination = scene_.destination;
  progress_.buckets = static_cast<std::uint32_t>(scene_.map.size());
  progress_.moving = static_cast<std::uint32_t>(scene_.moving.size());
  return std::nullopt;
}

trouble move_runner::take(moving::stored& found) {
  streams_.clear();
  if (auto error = ask_where()) return error;
  const auto& registered = scene_.where.moving;
  if (!registered.empty() && registered != order_.job) {
    return pg_error{"55006", fmt::format("the move {} of database \"{}\" is under way", registered,
                                         order_.database), {}, {}};
  }
  if (auto error = lock()) return error;
  if (auto error = scene_.open_all()) return error;
  runs_ = 0;
  scene_.round = 1;
  found = moving::stored::nothing;
  if (registered.empty() && order_.resume && !taken_) {   // its runner has ended it meanwhile
    return pg_error{"55006", fmt::format("the move {} is over already", order_.job), {}, {}};
  }
  taken_ = true;
  progress_.only_tried = false;
  if (registered.empty()) return std::nullopt;
  if (auto error = settle(found)) return error;
  scene_.round = std::max(stored_round_, 1u);
  return found == moving::stored::flipped ? recall() : trouble();
}

// A move past its flip, from what is stored: the router may have told of the map before it.
trouble move_runner::recall() {
  const auto rows = scene_.link(0).query(fmt::format(
      "SELECT j.destination, array_to_string(j.moving, ','), array_to_string(m.buckets, ','), "
      "array_to_string(j.sources, ',') FROM pgsled.job j JOIN pgsled.shard_map m "
      "ON m.database = j.database WHERE j.id = {} "
      "AND j.buckets = cardinality(m.buckets)", literal(order_.job)));
  if (!rows) return rows.error();
  const auto damaged = pg_error{"XX001", "what is stored of the move does not fit the shard map",
                                {}, {}};
  if (rows->size() != 1) return damaged;
  const auto destination = numbers((*rows)[0][0]);
  scene_.moving = numbers((*rows)[0][1]);
  scene_.map = numbers((*rows)[0][2]);
  if (destination.size() != 1 || scene_.moving.empty()) return damaged;
  scene_.destination = destination.front();
  for (const auto bucket : scene_.moving) {
    if (bucket >= scene_.map.size() || scene_.map[bucket] != scene_.destination) return damaged;
  }
  scene_.sources = numbers((*rows)[0][3]);   // one that was emptied is no owner any more
  for (const auto source : scene_.sources) {
    if (source >= scene_.where.shards.size() || source == scene_.destination) return damaged;
  }
  if (scene_.sources.empty()) return damaged;
  progress_.destination = scene_.destination;
  progress_.buckets = static_cast<std::uint32_t>(scene_.map.size());
  progress_.moving = static_cast<std::uint32_t>(scene_.moving.size());
  return find_tables(scene_);
}

// Keeps two replicators from taking a job from each other again and again; that only one of them
// changes anything is hold_job()'s.
trouble move_runner::lock() {
  if (lock_ && lock_->query("SELECT 1")) return std::nullopt;
  lock_.reset();
  auto made = scene_.open(0, usual_answer);
  if (!made) return made.error();
  const auto mine = one_value(*made, fmt::format("SELECT pg_try_advisory_lock(20738, hashtext({}))",
                                                 literal(order_.database)));
  if (!mine) return mine.error();
  if (*mine != "t") {
    return pg_error{"55006", "another replicator moves buckets of this database", {}, {}};
  }
  lock_.emplace(std::move(*made));
  return std::nullopt;
}

// Takes the stored job over from whoever had it, and looks whether it is past its flip. A flip that
// is prepared holds the row: this waits for its end (lock_timeout).
trouble move_runner::settle(moving::stored& found) {
  found = moving::stored::given_up;
  streams_.clear();
  if (auto error = lock()) return error;   // another may have taken it over meanwhile
  if (auto error = scene_.open_all()) return error;
  std::vector<std::pair<std::uint32_t, std::string>> phases;   // round, phase; by shard
  bool given_up = false;
  stored_round_ = 0;
  for (auto& [shard, link] : scene_.links) {
    // What an earlier step has left: a server goes on with a statement that nobody waits for.
    if (auto error = execute(link, fmt::format(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = {} "
            "AND datname = current_database() AND pid <> pg_backend_pid() AND pid NOT IN (SELECT "
            "pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 20738)",
            literal(scene_.application())))) {
      return error;
    }
    const auto there = claim_job(link, order_.job, scene_.application());
    if (!there) return there.error();
    if (!*there) continue;
    const auto rows = link.query(fmt::format(
        "UPDATE pgsled.job SET runner = {}, runs = runs + CASE WHEN runner = {} THEN 0 ELSE 1 END, "
        "changed_at = now() WHERE id = {} RETURNING phase, runs, round, destination, kind, "
        "coalesce(shard, destination), given_up AND phase = 'moving'",
        literal(scene_.runner), literal(scene_.runner), literal(order_.job)));
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      const auto round = static_cast<std::uint32_t>(std::stoul(row[2]));
      phases.emplace_back(round, row[0]);
      given_up = given_up || row[6] == "t";
      runs_ = std::max(runs_, static_cast<std::uint32_t>(std::stoul(row[1])));
      if (round <= stored_round_) continue;
      stored_round_ = round;
      const auto kind = moving::goal_kind_of(row[4]);
      if (!kind) {
        return pg_error{"XX001", fmt::format("the move is of the kind \"{}\", which this version "
                                             "does not know", row[4]), {}, {}};
      }
      scene_.destination = static_cast<shard_number>(std::stoul(row[3]));
      scene_.goal = {*kind, static_cast<shard_number>(std::stoul(row[5]))};
      progress_.goal = moving::in_words(scene_.goal);
      goal_known_ = true;
    }
  }
  // A shard that is still at an earlier round has not taken part in the newest one.
  for (const auto& [round, phase] : phases) {
    if (round != stored_round_) continue;
    if (phase == "flipped" || phase == "done") found = moving::stored::flipped;
    if (phase == "moving" && found != moving::stored::flipped) found = moving::stored::moving;
  }
  // One shard that has it so is enough: it must not begin again by itself.
  if (given_up && found == moving::stored::moving) found = moving::stored::given_up;
  return std::nullopt;
}

}  // namespace pgsled::replicator
