#pragma once
// script: how the open transaction of a session has come to be what it is besides its rows: BEGIN
// with its modes, open savepoints, SET and SET LOCAL, in order. Said again on a server that joins
// the transaction. What a RELEASE has merged stays, what a ROLLBACK TO has undone goes. Pure.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/session/settings.hpp"
#include "common/sql/statement.hpp"

namespace pgsled::session {

class script {
 public:
  static constexpr std::size_t max_bytes = 64 * 1024;

  // The statement has succeeded. `settings`: of the session when it began; null for
  // a BEGIN that cannot be said again because its query had changed settings before it. `behind`: of
  // shadow::behind().
  void succeeded(const sql::statement&, const pair_set_ref& settings,
                 const std::vector<std::string>& behind = {});
  // The transaction is over.
  void clear();

  // A BEGIN has been seen and no other has ended it.
  bool open() const { return !begin_.empty(); }
  // sql() says all of it: nothing was too long, or a setting whose text is not known.
  bool complete() const { return open() && complete_; }
  // The BEGIN; and whether AND CHAIN begins just so, without the modes of a SET TRANSACTION.
  const std::string& begin() const { return begin_; }
  bool begins_alike() const { return open() && !modes_ && !lost_; }
  bool has_savepoint(std::string_view name) const;
  bool has_room(std::size_t bytes) const { return bytes_ + bytes <= max_bytes; }
  // What the transaction has set search_path to, as SQL text (DEFAULT among it; empty: to what is
  // not known); null: nothing.
  const std::string* search_path() const;
  // The transaction has set who it is, so that "$user" is somebody else.
  bool changes_role() const;
  // One text of statements, beginning with BEGIN.
  std::string sql() const;
  // On whose top it is to be said.
  const pair_set_ref& settings() const { return settings_; }

 private:
  void one_succeeded(const sql::statement&, const pair_set_ref& settings,
                     const std::vector<std::string>& behind);
  struct line {
    std::string savepoint;   // its name; empty: another statement
    std::string text;
    std::optional<std::string> search_path;   // it sets that, to this
    bool role = false;                        // it sets that, or the session's authorization
  };
  void add(std::string savepoint, std::string text);
  void add_setting(std::string_view how, const sql::statement&);
  void add_reset(const sql::statement&, const std::vector<std::string>& behind);
  void path_is(std::string path);

  std::string begin_;
  pair_set_ref settings_;
  std::vector<line> lines_;
  std::size_t bytes_ = 0;
  bool complete_ = true;
  bool modes_ = false;  // SET TRANSACTION has been said
  bool lost_ = false;   // something had no room, a savepoint perhaps
};

}  // namespace pgsled::session
