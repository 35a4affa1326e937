#pragma once
// shadow: what the settings of a client's session are, kept as PostgreSQL keeps them: changes are
// undone by the end of a failed transaction and by ROLLBACK TO a savepoint. SET LOCAL ends with
// the transaction and so never reaches the shadow. Pure; a few words of memory when idle.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/session/settings.hpp"
#include "common/sql/statement.hpp"

namespace pgsled::session {

class shadow {
 public:
  // `base`: the settings the client asked for at start-up; RESET goes back to them.
  explicit shadow(pair_set_ref base) : base_(base), current_(std::move(base)) {}

  const pair_set_ref& current() const { return current_; }
  const pair_set_ref& base() const { return base_; }
  // Something has been set that the end of the transaction may still take back.
  bool undecided() const { return transaction_ != nullptr; }

  // The statement has succeeded with this command tag.
  void succeeded(const sql::statement&, std::string_view tag, pair_table&);
  void failed() { failed_ = true; }
  // search_path may be another one than current() says; until DISCARD ALL or a plain SET that stays.
  bool path_unknown() const { return path_unknown_; }
  // What the server reports a setting to be, where SET gave only a part of it (DateStyle).
  void restate(std::string_view name, std::string_view value, pair_table& table) {
    if (current_->find(name) != nullptr) current_ = table.with(current_, name, value);
  }
  // ReadyForQuery with its status: 'I', 'T' or 'E'.
  void ready(char status);
  // Statements that, straight behind this one, take the connection to what the session began with:
  // a RESET goes to the server's own values. None for most.
  std::vector<std::string> behind(const sql::statement&) const;
  // True once since the last call when RESET took the connection back to its own defaults
  // rather than to this session's: what is applied to it must then be applied anew.
  bool take_connection_unknown() { return std::exchange(connection_unknown_, false); }

 private:
  struct transaction {
    pair_set_ref at_start;
    std::vector<std::pair<std::string, pair_set_ref>> savepoints;
    bool path_unknown = false;   // at any time before now
  };
  transaction& open();
  void undo();
  void one_succeeded(const sql::statement&, std::string_view tag, pair_table&);

  pair_set_ref base_, current_;
  std::unique_ptr<transaction> transaction_;
  bool failed_ = false, connection_unknown_ = false, path_unknown_ = false;
};

}  // namespace pgsled::session
