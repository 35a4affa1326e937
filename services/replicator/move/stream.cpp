#include "services/replicator/move/stream.hpp"

#include <fmt/format.h>

#include <thread>

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using moving::follow_action;

constexpr std::chrono::milliseconds long_wait{600'000};   // a slot waits for old transactions
constexpr std::chrono::seconds between_confirmations{1};
constexpr std::chrono::milliseconds between_tries{50};
constexpr int most_tries = 100;
constexpr std::chrono::milliseconds between_places{20};   // to give waiting rows one

std::int64_t microseconds_since_2000() {
  constexpr std::int64_t epoch = 946'684'800'000'000;
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch()).count() - epoch;
}

}  // namespace

void touched_rows::add(std::size_t table, std::string row) {
  if (unknown) return;
  const std::size_t size = row.size();
  if (!rows[table].insert(std::move(row)).second) return;
  ++count;
  bytes += size;
  if (bytes <= most_bytes) return;
  unknown = true;
  rows.clear();
}

move_stream::move_stream(const move_scene& scene, shard_number source)
    : scene_(scene), source_(source), may_wait_(scene.gets && scene.sources.size() > 1),
      waiting_(scene.job, scene.slot(source)) {}

result<bool> move_stream::make_slot() {
  auto link = scene_.open(source_, long_wait, true);
  if (!link) return tl::unexpected(link.error());
  walsender_.emplace(std::move(*link));
  const auto made = walsender_->query(fmt::format(
      "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", scene_.slot(source_)));
  if (!made) return tl::unexpected(made.error());
  if (made->empty() || made->front().size() < 3) return failure("08P01", "a slot without snapshot");
  reached_ = applied_ = moving::lsn_from_text(made->front()[1]).value_or(0);
  snapshot_ = made->front()[2];

  // Nothing of this has to be on a disk before the flip, which is.
  return open_destination(fmt::format("SET synchronous_commit = off; "
                                      "SELECT pg_replication_origin_create('{}')",
                                      scene_.slot(source_)));
}

result<bool> move_stream::resume() {
  auto link = scene_.open(source_, long_wait, true);
  if (!link) return tl::unexpected(link.error());
  walsender_.emplace(std::move(*link));
  if (auto opened = open_destination("SET synchronous_commit = on"); !opened) return opened;
  resumed_ = true;
  touched_.unknown = true;   // until all rows are compared
  // What the origin says is on the disk by then. Behind it the slot may know of more that was
  // nothing to the destination.
  const auto come = one_value(*apply_, "SELECT pg_replication_origin_session_progress(true)");
  if (!come) return tl::unexpected(come.error());
  const auto slot = one_value(*walsender_, fmt::format(
      "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
      scene_.slot(source_)));
  if (!slot) return tl::unexpected(slot.error());
  if (slot->empty()) {
    return failure("55000", fmt::format("the slot {} is not there any more", scene_.slot(source_)));
  }
  from_ = moving::lsn_from_text(*come).value_or(0);
  reached_ = applied_ = std::max(from_, moving::lsn_from_text(*slot).value_or(0));
  const auto tables = scene_.tables.find(source_);
  if (!may_wait_ || tables == scene_.tables.end()) return true;
  if (auto error = waiting_.load(*apply_, tables->second)) return tl::unexpected(std::move(*error));
  return true;
}

result<bool> move_stream::open_destination(const std::string& manner) {
  auto apply = scene_.open(scene_.destination, long_wait);
  if (!apply) return tl::unexpected(apply.error());
  apply_.emplace(std::move(*apply));
  // Another stream's transaction may be open on a row that this one puts there, and may be the same
  // thread's, so that waiting for it is of no use.
  if (auto error = execute(*apply_, fmt::format(
          "SET session_replication_role = replica; {}; {}"
          "SELECT pg_replication_origin_session_setup('{}')", manner,
          may_wait_ ? "SET lock_timeout = '1s'; " : "", scene_.slot(source_)))) {
    return tl::unexpected(std::move(*error));
  }
  know_tables();
  return true;
}

void move_stream::know_tables(moving::lsn agreed) {
  const auto tables = scene_.tables.find(source_);
  follower_.emplace(tables == scene_.tables.end() ? std::vector<moving::table>() : tables->second,
                    scene_.of_source(source_), agreed, may_wait_);
}

void move_stream::suspend() {
  if (!begun_) return;   // its snapshot is still needed
  walsender_.reset();
  apply_.reset();
  pending_.clear();
  pending_bytes_ = 0;
  open_ = paused_ = false;
  between_ = true;
  transactions_ = 0;
  from_ = reached_ = applied_;
  marker_to_be_.clear();
  hold_at_.reset();
  held_.reset();
  touched_ = {};
}

// The servers may take a moment to see that the sessions of before have ended.
result<bool> move_stream::begin_again(moving::lsn agreed) {
  if (!begun_) {
    know_tables(agreed);
    return true;
  }
  for (int attempt = 0;; ++attempt) {
    const auto begun = [&]() -> result<bool> {
      auto link = scene_.open(source_, long_wait, true);
      if (!link) return tl::unexpected(link.error());
      walsender_.emplace(std::move(*link));
      if (auto opened = open_destination("SET synchronous_commit = off"); !opened) return opened;
      know_tables(agreed);
      return begin();
    }();
    if (begun || begun.error().sqlstate != "55006" || attempt == most_tries) return begun;
    std::this_thread::sleep_for(between_tries);
  }
}

result<bool> move_stream::begin() {
  begun_ = true;
  return walsender_->begin_stream(fmt::format(
      "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{}', "
      "messages 'true')", scene_.slot(source_), moving::lsn_to_text(from_),
      scene_.publication()));
}

std::int64_t move_stream::behind() const {
  return server_end_ > applied_ ? static_cast<std::int64_t>(server_end_ - applied_) : 0;
}

result<bool> move_stream::pump(std::chrono::milliseconds wait) {
  // What has begun is taken to its end: on the same server a point would wait for that.
  const auto stands = [this] { return held_ || (paused_ && between_) || waiting_.full(); };
  if (!waiting_.full()) full_since_ = clock::now();
  if (clock::now() - full_since_ > longest_full) {
    return failure("53400", fmt::format("{} rows of shard {} have no place on the destination, "
                                        "because other shards have rows that are equal in a unique "
                                        "key", waiting_.all().size(), source_));
  }
  if (stands()) std::this_thread::sleep_for(wait);
  while (!stands()) {
    auto frame = walsender_->receive(wait);
    if (!frame) return tl::unexpected(frame.error());
    if (!*frame) break;
    wait = std::chrono::milliseconds(0);   // as long as something is there it is taken
    if (auto taken = take(as_bytes(**frame)); !taken) return taken;
    if (held_) held_ = std::move(**frame);
    if (between_ && transactions_ >= most_transactions) break;
  }
  if (between_ && transactions_ > 0) {
    if (auto sent = send_pending(true); !sent) return sent;
  }
  if (clock::now() - tried_at_ > between_places) {
    if (auto given = give_places(false); !given) return given;
  }
  return confirm(false);
}

result<bool> move_stream::take(byte_span bytes) {
  const auto frame = moving::decode_frame(bytes);
  if (!frame) return tl::unexpected(frame.error());
  server_end_ = std::max(server_end_, frame->server_end);
  if (!frame->data) return frame->wants_reply ? confirm(true) : result<bool>(true);
  const auto message = moving::wal::decode(frame->payload);
  if (!message) return tl::unexpected(message.error());
  if (const auto* begin = std::get_if<moving::wal::begin>(&*message)) {
    if (hold_at_ && begin->final_position >= *hold_at_) {
      hold_at_.reset();
      held_.emplace();   // pump() keeps the frame
      return true;
    }
    between_ = false;
  }
  auto todo = follower_->feed(*message);
  if (!todo) return tl::unexpected(todo.error());
  for (follow_action& one : *todo) {
    if (auto done = perform(std::move(one)); !done) return done;
  }
  return true;
}

result<touched_rows> move_stream::release() {
  const auto frame = std::move(*held_);
  held_.reset();
  auto before = std::exchange(touched_, {});
  if (auto taken = take(as_bytes(frame)); !taken) return tl::unexpected(taken.error());
  return before;
}

result<bool> move_stream::perform(follow_action one) {
  switch (one.what) {
    case follow_action::kind::marker: marker_to_be_ = std::move(one.content); return true;
    case follow_action::kind::commit:
      between_ = true;
      reached_ = one.end;
      ++transactions_;
      return true;
    case follow_action::kind::change: break;
  }
  if (one.rows.empty()) touched_.unknown = true;
  for (const auto& row : one.rows) touched_.add(one.table, row);
  pending_bytes_ += one.sql.size() + 2;
  pending_.push_back(std::move(one));
  if (pending_bytes_ >= most_pending) return send_pending(false);
  return true;
}

std::string move_stream::pending(std::size_t first, std::size_t end) const {
  std::string sql;
  for (std::size_t i = first; i < end; ++i) sql += pending_[i].sql + ";\n";
  return sql;
}

// Whether each statement did what it had to do.
result<bool> move_stream::as_expected(const std::vector<std::int64_t>& touched, std::size_t before,
                                      std::size_t first, std::size_t end) const {
  for (std::size_t i = first; i < end; ++i) {
    const auto there = touched[before + i - first];
    const auto& expected = pending_[i].touches;
    if (expected && there != *expected) {
      return failure("55000", fmt::format("a change of shard {} would have touched {} rows on the "
                                          "destination instead of {}", source_, there, *expected));
    }
  }
  return true;
}

// Sends the statements that have gathered, and checks that each did what it had to do.
result<bool> move_stream::send_pending(bool commit) {
  if (!pending_.empty() || (commit && open_)) {
    std::string begin, end;
    std::size_t before = 0, after = 0;
    const bool was_open = std::exchange(open_, true);
    if (!was_open) {
      begin = "BEGIN; " + hold_job(scene_) + ";\n";
      before = 2;
    } else if (may_wait_) {
      begin = "SAVEPOINT pgsled_piece;\n";
      before = 1;
      if (!commit) {
        end = "RELEASE SAVEPOINT pgsled_piece";
        after = 1;
      }
    }
    if (commit) {
      end = fmt::format("SELECT pg_replication_origin_xact_setup('{}', now()); COMMIT",
                        moving::lsn_to_text(reached_));
      after = 2;
      open_ = false;
    }
    bool done = false;
    if (!any_about_waiting()) {
      const bool later = commit && resumed_;
      const auto touched = apply_->run(begin + pending(0, pending_.size()) + (later ? "" : end));
      if (touched && touched->size() != before + pending_.size() + (later ? 0 : after)) {
        return failure("08P01", "the destination answered another number of statements");
      }
      if (touched) {
        if (auto good = as_expected(*touched, before, 0, pending_.size()); !good) return good;
        if (later) {
          if (auto ended = apply_->run(end); !ended) return tl::unexpected(ended.error());
        }
      } else if (!may_wait_ || !in_the_way(touched.error())) {
        return tl::unexpected(touched.error());
      }
      done = touched.has_value();
      if (!done) {
        const auto back = apply_->run(was_open ? "ROLLBACK TO SAVEPOINT pgsled_piece; RELEASE "
                                                 "SAVEPOINT pgsled_piece" : "ROLLBACK");
        if (!back) return tl::unexpected(back.error());
      }
    }
    if (!done) {
      if (!was_open) {
        if (auto begun = apply_->run(begin); !begun) return tl::unexpected(begun.error());
      }
      if (auto applied = apply_carefully(0, pending_.size()); !applied) return applied;
      if (commit) {
        if (auto ended = apply_->run(end); !ended) return tl::unexpected(ended.error());
      }
    }
    rows_ += static_cast<std::int64_t>(pending_.size());
    pending_.clear();
    pending_bytes_ = 0;
  }
  if (commit) {
    applied_ = reached_;
    transactions_ = 0;
    if (!marker_to_be_.empty()) marker_ = std::move(marker_to_be_);
    marker_to_be_.clear();
  }
  return true;
}

result<bool> move_stream::confirm(bool now) {
  const auto at = clock::now();
  if (!now && at - confirmed_ < between_confirmations) return true;
  confirmed_ = at;
  return walsender_->send(moving::encode_status(applied_, microseconds_since_2000()));
}

}  // namespace pgsled::replicator
