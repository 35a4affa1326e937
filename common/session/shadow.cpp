#include "common/session/shadow.hpp"

#include <algorithm>

namespace pgsled::session {

namespace {

bool is_word(std::string_view value, std::string_view lower) {
  return std::equal(value.begin(), value.end(), lower.begin(), lower.end(),
                    [](char c, char l) { return (c | 0x20) == l; });
}

// SET LOCAL, with its value as it was written.
bool to_default(const sql::statement& done) {
  return is_word(done.value, "default") || (done.name == "timezone" && is_word(done.value, "local"));
}

}  // namespace

shadow::transaction& shadow::open() {
  if (!transaction_) transaction_ = std::make_unique<transaction>(transaction{current_, {}});
  transaction_->path_unknown = transaction_->path_unknown || path_unknown_;
  return *transaction_;
}

void shadow::undo() {
  if (transaction_) {
    current_ = transaction_->at_start;
    path_unknown_ = path_unknown_ || transaction_->path_unknown;
  }
  transaction_.reset();
}

void shadow::succeeded(const sql::statement& done, std::string_view tag, pair_table& table) {
  one_succeeded(done, tag, table);
  for (const auto& more : done.also) one_succeeded(more, tag, table);
}

void shadow::one_succeeded(const sql::statement& done, std::string_view tag, pair_table& table) {
  using sql::effect;
  switch (done.effect) {
    case effect::set:
      open();
      current_ = table.with(current_, done.name, "=" + done.value);
      if (done.name == "search_path") path_unknown_ = false;
      // SET SESSION AUTHORIZATION also takes a role back.
      if (done.name == "session_authorization") current_ = table.without(current_, "role");
      break;
    case effect::reset: {
      open();
      const auto* initial = base_->find(done.name);
      current_ = initial != nullptr ? table.with(current_, done.name, *initial)
                                    : table.without(current_, done.name);
      if (done.name == "search_path") path_unknown_ = false;
      if (initial != nullptr) connection_unknown_ = true;
      // As SET SESSION AUTHORIZATION, this takes a role back.
      if (done.name == "session_authorization") current_ = table.without(current_, "role");
      break;
    }
    case effect::reset_all: {
      open();
      path_unknown_ = false;
      // RESET ALL leaves role and session authorization alone.
      pairs entries = base_->entries;
      for (const auto* name : {"role", "session_authorization"}) {
        std::erase_if(entries, [&](const auto& entry) { return entry.first == name; });
        if (const auto* value = current_->find(name)) entries.emplace_back(name, *value);
      }
      current_ = table.intern(std::move(entries));
      if (!base_->entries.empty()) connection_unknown_ = true;
      break;
    }
    case effect::discard_all:
      transaction_.reset();
      current_ = base_;
      path_unknown_ = false;
      connection_unknown_ = true;
      break;
    case effect::savepoint:
      open().savepoints.emplace_back(done.name, current_);
      break;
    case effect::release:
    case effect::rollback_to: {
      if (!transaction_) break;
      auto& points = transaction_->savepoints;
      const auto at = std::find_if(points.rbegin(), points.rend(),
                                   [&](const auto& point) { return point.first == done.name; });
      if (at == points.rend()) break;
      const auto index = static_cast<std::size_t>(points.rend() - at) - 1;
      if (done.effect == effect::release) {
        points.resize(index);
      } else {
        current_ = points[index].second;
        path_unknown_ = path_unknown_ || transaction_->path_unknown;
        points.resize(index + 1);
      }
      break;
    }
    case effect::commit:
      // COMMIT of a failed transaction answers ROLLBACK, and is one.
      if (tag == "ROLLBACK") {
        undo();
      } else {
        transaction_.reset();
      }
      break;
    case effect::rollback:
      undo();
      break;
    case effect::pin:
      path_unknown_ = path_unknown_ || done.unknown_path;
      break;
    case effect::none:
    case effect::begin:
    case effect::set_local:
    case effect::copy_from_stdin:
    case effect::deallocate:
      break;
  }
}

std::vector<std::string> shadow::behind(const sql::statement& done) const {
  std::vector<std::string> statements;
  const bool discards = done.effect == sql::effect::discard_all;
  const bool all = discards || done.effect == sql::effect::reset_all;
  const bool local = done.effect == sql::effect::set_local && to_default(done);
  if (!all && !local && done.effect != sql::effect::reset) return statements;
  // Who it is comes last, because it may not be allowed to set the others.
  for (const bool identity : {false, true}) {
    for (const auto& [name, value] : base_->entries) {
      if (is_identity(name) != identity) continue;
      if (all ? identity && !discards : name != done.name) continue;
      statements.push_back(setting_statement(name, value, local));
    }
  }
  return statements;
}

void shadow::ready(char status) {
  if (status == 'I') {
    if (failed_) {
      undo();
    } else {
      transaction_.reset();
    }
  }
  failed_ = false;
}

}  // namespace pgsled::session
