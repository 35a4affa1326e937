#include "common/session/script.hpp"

#include <algorithm>

namespace pgsled::session {

namespace {

std::string in_quotes(std::string_view name) {
  std::string made = "\"";
  for (const char c : name) {
    if (c == '"') made += c;
    made += c;
  }
  return made + '"';
}

}  // namespace

void script::succeeded(const sql::statement& done, const pair_set_ref& settings,
                       const std::vector<std::string>& behind) {
  one_succeeded(done, settings, behind);
  for (const auto& more : done.also) one_succeeded(more, settings, {});
}

void script::one_succeeded(const sql::statement& done, const pair_set_ref& settings,
                           const std::vector<std::string>& behind) {
  using sql::effect;
  if (done.effect == effect::begin) {
    if (open()) return;   // a warning, and nothing else
    begin_ = done.value;
    settings_ = settings;
    bytes_ = begin_.size();
    complete_ = settings != nullptr && bytes_ <= max_bytes;
    return;
  }
  if (!open()) return;
  modes_ = modes_ || done.name.starts_with("transaction");
  switch (done.effect) {
    case effect::commit:
    case effect::rollback: return clear();
    case effect::savepoint:
      return add(done.name, "SAVEPOINT " + in_quotes(done.name));
    case effect::set:
      // set_config(…, false) takes its value as a string, which is a value for SET as well.
      return add_setting("SET ", done);
    case effect::reset:
    case effect::reset_all:
      return add_reset(done, behind);
    case effect::pin:
      if (done.unknown_path) path_is({});
      return;
    case effect::set_local:
      if (done.name.empty() || done.value.empty()) {
        complete_ = false;
        if (done.unknown_path) path_is({});
      } else if (done.name == "transaction" || done.name == "constraints") {
        add({}, done.value);
      } else {
        add_setting("SET LOCAL ", done);
        for (const auto& one : behind) add({}, one);
      }
      return;
    case effect::release:
    case effect::rollback_to: {
      const auto at = std::find_if(lines_.rbegin(), lines_.rend(), [&](const line& one) {
        return one.savepoint == done.name;
      });
      if (at == lines_.rend()) return;
      const auto index = lines_.rend() - at - 1;
      if (done.effect == effect::rollback_to) {
        lines_.erase(lines_.begin() + index + 1, lines_.end());
      } else {
        // What was set since stays; the savepoints within it are gone with it.
        lines_.erase(std::remove_if(lines_.begin() + index, lines_.end(),
                                    [](const line& one) { return !one.savepoint.empty(); }),
                     lines_.end());
      }
      bytes_ = begin_.size();
      for (const line& one : lines_) bytes_ += one.text.size() + 1;
      return;
    }
    default: return;
  }
}

bool script::has_savepoint(std::string_view name) const {
  return std::any_of(lines_.begin(), lines_.end(), [&](const line& one) {
    return !one.savepoint.empty() && one.savepoint == name;
  });
}

// Without a text of its own: the whole cannot be said again then. One of them behind another is
// enough, so that they do not grow.
void script::path_is(std::string path) {
  if (lines_.empty() || !lines_.back().text.empty()) lines_.push_back({});
  lines_.back().search_path = std::move(path);
  complete_ = false;
}

void script::add(std::string savepoint, std::string text) {
  if (!has_room(text.size() + 1)) {
    complete_ = false;
    lost_ = true;
    return;
  }
  bytes_ += text.size() + 1;
  lines_.push_back({std::move(savepoint), std::move(text), {}});
}

void script::add_setting(std::string_view how, const sql::statement& done) {
  add({}, std::string(how) + quote_setting_name(done.name) + " TO " + done.value);
  if (lost_) return;
  if (done.name == "search_path") lines_.back().search_path = done.value;
  lines_.back().role = is_identity(done.name);
}

void script::add_reset(const sql::statement& done, const std::vector<std::string>& behind) {
  const bool all = done.effect == sql::effect::reset_all;
  add({}, all ? "RESET ALL"
          : done.name == "session_authorization" ? "RESET SESSION AUTHORIZATION"
                                                 : "RESET " + quote_setting_name(done.name));
  if (!lost_ && (all || done.name == "search_path")) lines_.back().search_path = "DEFAULT";
  for (const auto& one : behind) add({}, one);
}

const std::string* script::search_path() const {
  static const std::string unknown;
  if (lost_) return &unknown;
  const auto last = std::find_if(lines_.rbegin(), lines_.rend(),
                                 [](const line& one) { return one.search_path.has_value(); });
  return last == lines_.rend() ? nullptr : &*last->search_path;
}

bool script::changes_role() const {
  const auto sets_it = [](const line& one) { return one.role; };
  return lost_ || std::any_of(lines_.begin(), lines_.end(), sets_it);
}

void script::clear() {
  begin_.clear();
  settings_.reset();
  lines_.clear();
  bytes_ = 0;
  complete_ = true;
  lost_ = modes_ = false;
}

std::string script::sql() const {
  std::string all = begin_;
  for (const line& one : lines_) {
    if (!one.text.empty()) all += ";" + one.text;
  }
  return all;
}

}  // namespace pgsled::session
