// How a move_runner waits while the tables of the shards are not alike, and goes on when they are, or
// begins again, if the copy was ended by it: DDL that came past pgsled on one shard, which is to come
// to the others or to be taken back.

#include <fmt/format.h>

#include <algorithm>

#include "common/log/log.hpp"
#include "services/replicator/move/copy.hpp"
#include "services/replicator/move/runner.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using moving::step;
using std::chrono::milliseconds;

constexpr milliseconds first_wait{500}, longest_wait{5000};

pg_error waiting_for(const std::vector<std::string>& differ) {
  auto why = fmt::format("tables are not alike: {}", differ.front());
  if (differ.size() > 1) why += fmt::format("; and {} more", differ.size() - 1);
  return {"55000", std::move(why),
          "Make the same change on the other shards, each directly (pgsled refuses DDL during a "
          "move), or take it back: the move goes on by itself. Or abort it.", {}};
}

}  // namespace

// An error that tables which are not what they were may be the reason of: pause() finds out.
bool move_runner::may_be_of_tables(step what, const pg_error& why) {
  const bool of_tables = why.sqlstate.starts_with("42") || why.sqlstate == "55000" ||
                         why.sqlstate == "23502" || why.sqlstate == "22P02" ||
                         why.sqlstate == "XX001";
  if (why.sqlstate == rewritten) return what == step::copy;
  return of_tables && (what == step::copy || what == step::catch_up || what == step::compare ||
                       what == step::fence || what == step::verify);
}

trouble move_runner::pause() {
  for (const auto& stream : streams_) stream->suspend();
  std::string told;
  for (auto delay = first_wait;; delay = std::min(delay * 2, longest_wait)) {
    const auto now = look_at_tables(scene_);
    if (!now) return now.error();
    if (now->end && !job_.begins_again()) {
      return pg_error{"55000", "tables were changed during the move: " + *now->end, "Begin again.",
                      {}};
    }
    if (now->differ.empty()) {
      bool gone_on = false;
      if (auto error = go_on_with(*now, gone_on)) return error;
      if (!gone_on) continue;
      progress_.sqlstate.clear();
      progress_.error.clear();
      log::info("move", "{}: {}", order_.job,
                job_.begins_again() ? "begins again, from the first row" : "goes on");
      return std::nullopt;
    }
    paused_by_.reset();   // this is why; when it is mended there is nothing left of it
    const auto why = waiting_for(now->differ);
    progress_.because(why);
    tell();
    if (told != why.message) {
      log::warn("move", "{} is paused: {}. {}", order_.job, why.message, why.hint);
      told = why.message;
      delay = first_wait;
    }
    for (const auto until = clock::now() + delay; clock::now() < until;) {
      if (quit_) return pg_error{"57014", "the move was interrupted", {}, {}};
      if (auto error = watch_slots()) return error;
      wait(20);
    }
  }
}

// All shards have the same tables, perhaps other ones than before. What a source has committed
// before a position behind the look may be of its tables as they were; that nothing was changed
// between the look and that position says a second look.
trouble move_runner::go_on_with(const tables_now& first, bool& gone_on) {
  const bool of_columns = std::any_of(streams_.begin(), streams_.end(),
                                      [](const auto& one) { return one->columns_changed(); });
  if (first.tables == scene_.tables && !of_columns && paused_by_) return paused_by_;
  if (job_.begins_again()) {   // nothing of what there is is gone on with
    gone_on = true;
    return std::nullopt;
  }
  std::map<shard_number, moving::lsn> agreed;
  for (const shard_number source : scene_.sources) {
    const auto at = one_value(scene_.link(source), "SELECT pg_current_wal_insert_lsn()");
    if (!at) return at.error();
    agreed[source] = moving::lsn_from_text(*at).value_or(0);
  }
  const auto second = look_at_tables(scene_);
  if (!second) return second.error();
  if (second->end || !second->differ.empty() || second->tables != first.tables) return {};
  scene_.tables = second->tables;
  for (const auto& stream : streams_) {
    if (const auto begun = stream->begin_again(agreed[stream->source()]); !begun) {
      return begun.error();
    }
  }
  compared_ = false;   // all of it, with the columns of now
  gone_on = true;
  return std::nullopt;
}

}  // namespace pgsled::replicator
