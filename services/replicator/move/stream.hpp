#pragma once
// move_stream: one source of a move: its slot, and what it has committed since, replayed on the
// destination. One transaction of the destination covers whole transactions of the source, and the
// origin's position is stored with it.
// Thread rule: one thread at a time.

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "common/moving/follower.hpp"
#include "services/replicator/move/scene.hpp"
#include "services/replicator/move/waiting.hpp"

namespace pgsled::replicator {

// Rows that were changed on the destination, as conditions, by the table's place.
struct touched_rows {
  static constexpr std::size_t most_bytes = 64u << 20;

  std::map<std::size_t, std::set<std::string>> rows;
  std::size_t count = 0, bytes = 0;
  bool unknown = false;                // too many to be kept, or all of a table

  void add(std::size_t table, std::string row);
};

class move_stream {
 public:
  static constexpr std::size_t most_pending = 1u << 20;        // bytes of SQL sent at once
  static constexpr std::size_t most_transactions = 200;        // of the source, in one of ours
  static constexpr std::chrono::seconds longest_full{60};      // no more rows may wait: then it ends

  move_stream(const move_scene&, shard_number source);

  // Makes the slot, whose snapshot stays until begin() or the next use of this connection.
  result<bool> make_slot();
  const std::string& snapshot() const { return snapshot_; }
  result<bool> begin();   // the stream, from where the slot was made, or from where it had come
  // Instead of make_slot(): goes on with a slot and an origin that are there, whoever used them.
  // What is applied from then on is on the destination's disk before the source may forget it.
  result<bool> resume();

  // After a pause, in which the scene's tables may have become others. suspend() gives up what is
  // not committed on the destination, and with it every lock there; begin_again() goes on from what
  // was committed. What the source has committed before `agreed` may be of the tables as they were.
  void suspend();
  result<bool> begin_again(moving::lsn agreed);
  bool begun() const { return begun_; }
  bool columns_changed() const { return follower_ && follower_->columns_changed(); }

  // Applies what has come, and waits for something for at most `wait`.
  result<bool> pump(std::chrono::milliseconds wait);
  // pause() takes nothing more, until it is known where to hold: hold_at() goes on and stops in
  // front of the first transaction that was committed at `position` or later: then held(). What
  // comes before it is applied. release() goes on, and gives the rows that were touched since the
  // last time.
  void pause() { paused_ = true; }
  void hold_at(moving::lsn position) {
    hold_at_ = position;
    paused_ = false;
  }
  bool held() const { return held_.has_value(); }
  result<touched_rows> release();
  const touched_rows& touched() const { return touched_; }
  // For reading, between pumps that have left no transaction open there.
  management::connection& destination() { return *apply_; }
  // Rows that have no place on the destination yet; only where several sources fill it.
  const waiting_rows& waiting() const { return waiting_; }
  // One that was copied, to `ctid`, and that another source had under its snapshot, too. Before
  // begin().
  result<bool> let_wait(std::size_t table, const std::string& known_by, moving::kept_row,
                        const std::string& ctid);
  // Gives those a place that have one now; between transactions. All of them, or some.
  result<bool> give_places(bool all);
  moving::lsn reached() const { return reached_; }   // the end of the last transaction
  shard_number source() const { return source_; }

  const std::string& last_marker() const { return marker_; }   // that has been applied
  std::int64_t behind() const;                                 // bytes of the source's log
  std::int64_t applied_rows() const { return rows_; }

 private:
  result<bool> open_destination(const std::string& manner);
  void know_tables(moving::lsn agreed = 0);
  result<bool> take(byte_span frame);
  result<bool> perform(moving::follow_action);
  result<bool> send_pending(bool commit);
  std::string pending(std::size_t first, std::size_t end) const;
  result<bool> as_expected(const std::vector<std::int64_t>& touched, std::size_t before,
                           std::size_t first, std::size_t end) const;
  bool about_waiting(const moving::follow_action&) const;
  bool any_about_waiting() const;
  result<bool> apply_carefully(std::size_t first, std::size_t end);
  result<bool> attempt(std::size_t first, std::size_t end);
  result<bool> apply_to_waiting(const moving::follow_action&);
  result<bool> set_aside(const moving::follow_action&, const pg_error& why);
  result<bool> count_one(const std::string& sql);
  result<bool> confirm(bool now);

  const move_scene& scene_;
  shard_number source_;
  std::string snapshot_;
  std::optional<management::connection> walsender_, apply_;
  std::optional<moving::follower> follower_;
  std::vector<moving::follow_action> pending_;   // changes that are not sent yet
  std::size_t pending_bytes_ = 0;                // of SQL
  bool open_ = false;                            // a transaction on the destination
  bool between_ = true;                          // no transaction of the source is under way
  bool begun_ = false;
  // Nothing compares all rows behind it, perhaps for days: what did not do what it had to is not
  // committed, so that whoever tries again meets it again.
  bool resumed_ = false;
  std::size_t transactions_ = 0;
  moving::lsn from_ = 0, reached_ = 0, applied_ = 0, server_end_ = 0;
  std::string marker_, marker_to_be_;
  bool paused_ = false;
  std::optional<moving::lsn> hold_at_;
  std::optional<std::string> held_;              // the frame that begins that transaction
  touched_rows touched_;
  bool may_wait_;
  waiting_rows waiting_;
  waiting_rows::entries::key_type tried_{};      // the last one that was tried
  std::chrono::steady_clock::time_point tried_at_{}, full_since_{};
  std::int64_t rows_ = 0;
  std::chrono::steady_clock::time_point confirmed_{};
};

}  // namespace pgsled::replicator
