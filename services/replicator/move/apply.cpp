// How a move_stream goes on when a row of another source is in the way of one of its own.

#include <fmt/format.h>

#include "services/replicator/move/stream.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using moving::follow_action;
using kind = moving::wal::field::kind;

constexpr std::size_t tried_at_once = 100;
constexpr const char* step = "SAVEPOINT pgsled_step; SET LOCAL lock_timeout = '100ms'; ";
constexpr const char* step_done = "RELEASE SAVEPOINT pgsled_step";
constexpr const char* step_back =
    "ROLLBACK TO SAVEPOINT pgsled_step; RELEASE SAVEPOINT pgsled_step";

result<bool> told(const result<std::vector<std::int64_t>>& from) {
  if (!from) return tl::unexpected(from.error());
  return true;
}

}  // namespace

// A TRUNCATE counts for all that wait of its table.
bool move_stream::about_waiting(const follow_action& one) const {
  if (waiting_.empty()) return false;
  if (one.rows.empty()) return waiting_.any_of(one.table);
  return one.had && waiting_.find(one.table, one.rows.front()) != nullptr;
}

bool move_stream::any_about_waiting() const {
  for (const follow_action& one : pending_) {
    if (about_waiting(one)) return true;
  }
  return false;
}

// In order, in the open transaction: together what is not about a row that waits.
result<bool> move_stream::apply_carefully(std::size_t first, std::size_t end) {
  while (first < end) {
    std::size_t until = first;
    while (until < end && !about_waiting(pending_[until])) ++until;
    auto done = until == first ? apply_to_waiting(pending_[until++]) : attempt(first, until);
    if (!done) return done;
    first = until;
  }
  return true;
}

// All or none of them; then by halves, until it is known which one has no place.
result<bool> move_stream::attempt(std::size_t first, std::size_t end) {
  const auto touched = apply_->run(step + pending(first, end) + step_done);
  if (touched) {
    if (touched->size() != end - first + 3) {
      return failure("08P01", "the destination answered another number of statements");
    }
    return as_expected(*touched, 2, first, end);
  }
  const auto why = touched.error();
  if (!in_the_way(why)) return tl::unexpected(why);
  if (auto back = told(apply_->run(step_back)); !back) return back;
  if (end - first == 1) return set_aside(pending_[first], why);
  const auto middle = first + (end - first) / 2;
  if (auto left = apply_carefully(first, middle); !left) return left;
  return apply_carefully(middle, end);
}

result<bool> move_stream::count_one(const std::string& sql) {
  const auto touched = apply_->run(sql);
  if (!touched) return tl::unexpected(touched.error());
  if (touched->size() == 1 && touched->front() == 1) return true;
  return failure("55000", fmt::format("a change of shard {} would have touched {} rows on the "
                                      "destination instead of 1", source_,
                                      touched->empty() ? 0 : touched->front()));
}

// What has become of a row that waits, waits.
result<bool> move_stream::apply_to_waiting(const follow_action& one) {
  if (one.rows.empty()) {
    return told(apply_->run("SET LOCAL lock_timeout = '15s'; " + one.sql + "; " +
                            waiting_.take_table(one.table)));
  }
  const auto& of = scene_.tables.at(source_).at(one.table);
  auto before = waiting_.find(one.table, one.rows.front())->row;
  auto sql = waiting_.take(one.table, one.rows.front());
  if (one.row) {
    auto now = *one.row;
    for (std::size_t i = 0; i < now.size(); ++i) {
      if (now[i].what == kind::unchanged) now[i] = std::move(before[i]);
    }
    if (waiting_.find(one.table, one.rows.back()) != nullptr) {
      return failure("55000", fmt::format("table {}: shard {} has two rows with {}", of.label(),
                                          source_, one.rows.back()));
    }
    sql += "; " + waiting_.put(of, one.table, one.rows.back(), std::move(now));
  }
  return told(apply_->run(sql));
}

// The row as it is now waits. If it was there before, what it was goes.
result<bool> move_stream::set_aside(const follow_action& one, const pg_error& why) {
  if (why.sqlstate == "55P03" && (one.had || !one.row)) {
    // It may be somebody else's lock: the usual time.
    const auto touched = apply_->run(std::string(step) + "SET LOCAL lock_timeout = '15s'; " +
                                     one.sql + "; " + step_done);
    if (touched) {
      const auto there = touched->size() == 5 ? (*touched)[3] : -1;
      if (!one.touches || there == *one.touches) return true;
      return failure("55000", fmt::format("a change of shard {} would have touched {} rows on the "
                                          "destination instead of {}", source_, there,
                                          *one.touches));
    }
    if (!in_the_way(touched.error())) return tl::unexpected(touched.error());
    if (auto back = told(apply_->run(step_back)); !back) return back;
  }
  if (!one.row) return tl::unexpected(why);
  const auto& of = scene_.tables.at(source_).at(one.table);
  auto now = *one.row;
  if (one.had) {
    const auto text = one_value(*apply_, fmt::format(
        "SELECT {} FROM ONLY {} WHERE {}", row_as_text(of), moving::in_sql(of), one.rows.front()));
    if (!text) return tl::unexpected(text.error());
    auto before = row_of(of, *text);
    if (!before) return tl::unexpected(before.error());
    for (std::size_t i = 0; i < now.size(); ++i) {
      if (now[i].what == kind::unchanged) now[i] = std::move((*before)[i]);
    }
    if (auto gone = count_one(fmt::format("DELETE FROM ONLY {} WHERE {}", moving::in_sql(of),
                                          one.rows.front())); !gone) {
      return gone;
    }
  }
  if (waiting_.find(one.table, one.rows.back()) != nullptr) return tl::unexpected(why);
  return told(apply_->run(waiting_.put(of, one.table, one.rows.back(), std::move(now))));
}

result<bool> move_stream::let_wait(std::size_t table, const std::string& known_by,
                                   moving::kept_row row, const std::string& ctid) {
  const auto& of = scene_.tables.at(source_).at(table);
  if (waiting_.find(table, known_by) != nullptr) {
    return failure("23505", fmt::format("table {}: shard {} has two rows with {}", of.label(),
                                        source_, known_by));
  }
  if (auto begun = told(apply_->run("BEGIN; " + hold_job(scene_))); !begun) return begun;
  if (auto gone = count_one(fmt::format("DELETE FROM ONLY {} WHERE ctid = '{}'",
                                        moving::in_sql(of), ctid)); !gone) {
    return gone;
  }
  return told(apply_->run(waiting_.put(of, table, known_by, std::move(row)) + "; COMMIT"));
}

// Each for itself: one that has no place yet must not keep others from theirs.
result<bool> move_stream::give_places(bool all) {
  if (waiting_.empty() || open_) return true;
  std::vector<waiting_rows::entries::key_type> some;
  auto next = all ? waiting_.all().begin() : waiting_.all().upper_bound(tried_);
  while (some.size() < waiting_.all().size() && (all || some.size() < tried_at_once)) {
    if (next == waiting_.all().end()) next = waiting_.all().begin();
    some.push_back((next++)->first);
  }
  if (auto begun = told(apply_->run("BEGIN; " + hold_job(scene_))); !begun) return begun;
  for (const auto& key : some) {
    const auto& [table, known_by] = key;
    const auto insert = moving::insertion(scene_.tables.at(source_).at(table),
                                          moving::borrowed(waiting_.all().at(key).row));
    if (!insert) return tl::unexpected(insert.error());
    const auto done = apply_->run(step + *insert + "; " + step_done);
    if (done) {
      if (auto taken = told(apply_->run(waiting_.take(table, known_by))); !taken) return taken;
      touched_.add(table, known_by);
    } else if (!in_the_way(done.error())) {
      return tl::unexpected(done.error());
    } else if (auto back = told(apply_->run(step_back)); !back) {
      return back;
    }
  }
  tried_ = some.back();
  tried_at_ = clock::now();
  return told(apply_->run(fmt::format(
      "SELECT pg_replication_origin_xact_setup('{}', now()); COMMIT",
      moving::lsn_to_text(applied_))));
}

}  // namespace pgsled::replicator
