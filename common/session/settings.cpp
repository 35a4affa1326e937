#include "common/session/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace pgsled::session {

namespace {

std::string key_of(const pairs& entries) {
  std::string key;
  for (const auto& [name, value] : entries) {
    key.append(name).push_back('\0');
    key.append(value).push_back('\0');
  }
  return key;
}

bool name_less(const std::pair<std::string, std::string>& entry, std::string_view name) {
  return entry.first < name;
}

void take_back(std::string& sql, const std::string& name) {
  if (name == "session_authorization") {
    sql += "RESET SESSION AUTHORIZATION;";
  } else {
    sql += "RESET " + quote_setting_name(name) + ";";
  }
}

}  // namespace

bool hides_ascii(std::string_view encoding) {
  std::string letters;   // PostgreSQL reads nothing else of the name
  for (const char c : encoding) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  for (const std::string_view one : {"sjis", "shiftjis", "mskanji", "win932", "windows932", "big5",
                                     "win950", "windows950", "gbk", "win936", "windows936", "uhc",
                                     "win949", "windows949", "gb18030", "johab"}) {
    if (letters.find(one) != letters.npos) return true;
  }
  return false;
}

bool is_identity(std::string_view name) {
  return name == "role" || name == "session_authorization";
}

std::string setting_statement(std::string_view name, std::string_view value, bool local) {
  const std::string_view set = local ? "SET LOCAL " : "SET ";
  if (value.starts_with(':')) {
    return fmt::format("SELECT pg_catalog.set_config({},{},{})", quote_literal(name),
                       quote_literal(value.substr(1)), local);
  }
  if (name == "session_authorization") {
    return fmt::format("{}SESSION AUTHORIZATION {}", set, value.substr(1));
  }
  if (name == "role") return fmt::format("{}ROLE {}", set, value.substr(1));
  return fmt::format("{}{} TO {}", set, quote_setting_name(name), value.substr(1));
}

bool decides_parsing(std::string_view name) {
  static constexpr std::string_view names[] = {
      "array_nulls",      "backslash_quote",      "client_encoding", "datestyle",
      "default_text_search_config", "intervalstyle", "lc_monetary", "lc_numeric", "lc_time",
      "role",             "search_path",          "session_authorization",
      "standard_conforming_strings", "timezone", "timezone_abbreviations",
      "transform_null_equals", "xmloption"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

pair_set::pair_set(pairs sorted, std::string context)
    : entries(std::move(sorted)), parse_context(std::move(context)),
      search_path(find("search_path")), standard_strings(find("standard_conforming_strings")) {
  const auto* encoding = find("client_encoding");
  hides_ascii = encoding != nullptr && session::hides_ascii(*encoding);
}

const std::string* pair_set::find(std::string_view name) const {
  const auto at = std::lower_bound(entries.begin(), entries.end(), name, name_less);
  return at != entries.end() && at->first == name ? &at->second : nullptr;
}

pair_table::pair_table() : empty_(std::make_shared<const pair_set>()) {}

pair_set_ref pair_table::intern(pairs entries) {
  if (entries.empty()) return empty_;
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // The last value given for a name wins, as in PostgreSQL.
  pairs unique;
  for (auto& entry : entries) {
    if (!unique.empty() && unique.back().first == entry.first) {
      unique.back().second = std::move(entry.second);
    } else {
      unique.push_back(std::move(entry));
    }
  }
  std::string context;
  for (const auto& [name, value] : unique) {
    if (decides_parsing(name)) context.append(name).append(1, '=').append(value).push_back('\0');
  }
  auto& slot = sets_[key_of(unique)];
  if (auto known = slot.lock()) return known;
  auto made = std::make_shared<const pair_set>(std::move(unique), std::move(context));
  slot = made;
  if (sets_.size() > sweep_at_) sweep();
  return made;
}

void pair_table::sweep() {
  std::erase_if(sets_, [](const auto& entry) { return entry.second.expired(); });
  sweep_at_ = std::max<std::size_t>(64, sets_.size() * 2);
}

pair_set_ref pair_table::with(const pair_set_ref& base, std::string_view name,
                              std::string_view value) {
  if (const auto* old = base->find(name); old != nullptr && *old == value) return base;
  pairs entries = base->entries;
  const auto at = std::lower_bound(entries.begin(), entries.end(), name, name_less);
  if (at != entries.end() && at->first == name) {
    at->second = value;
  } else {
    entries.insert(at, {std::string(name), std::string(value)});
  }
  return intern(std::move(entries));
}

pair_set_ref pair_table::without(const pair_set_ref& base, std::string_view name) {
  if (base->find(name) == nullptr) return base;
  pairs entries = base->entries;
  std::erase_if(entries, [&](const auto& entry) { return entry.first == name; });
  return intern(std::move(entries));
}

std::string difference(const pair_set& applied, const pair_set& wanted) {
  std::string sql;
  if (&applied == &wanted) return sql;
  const auto differs = [](const pair_set& in, const auto& entry) {
    const auto* other = in.find(entry.first);
    return other == nullptr || *other != entry.second;
  };
  bool others = false, identity = false;
  const auto look = [&](const pair_set& in, const pair_set& against) {
    for (const auto& entry : in.entries) {
      if (differs(against, entry)) (is_identity(entry.first) ? identity : others) = true;
    }
  };
  look(applied, wanted);
  look(wanted, applied);
  // A role may not be allowed to set what the session user set before it became that role.
  const auto* authorization = applied.find("session_authorization");
  const auto* role = applied.find("role");
  const bool anew = identity || (others && (authorization != nullptr || role != nullptr));
  if (anew && role != nullptr) take_back(sql, "role");
  if (anew && authorization != nullptr) take_back(sql, "session_authorization");
  for (const auto& entry : applied.entries) {
    const bool gone = wanted.find(entry.first) == nullptr;
    if (gone && !is_identity(entry.first)) take_back(sql, entry.first);
  }
  for (const auto& entry : wanted.entries) {
    if (is_identity(entry.first) || !differs(applied, entry)) continue;
    sql += setting_statement(entry.first, entry.second) + ";";
  }
  // SET SESSION AUTHORIZATION takes a role back, so the role comes after it.
  for (const auto* name : {"session_authorization", "role"}) {
    if (const auto* value = wanted.find(name); value != nullptr && anew) {
      sql += setting_statement(name, *value) + ";";
    }
  }
  return sql;
}

std::string full_application(const pair_set& wanted) {
  return "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;" + difference(pair_set{}, wanted);
}

std::string encoding_before(const pair_set* applied, const pair_set& wanted,
                            std::string_view sql) {
  constexpr std::string_view name = "client_encoding";
  if (std::all_of(sql.begin(), sql.end(), [](char c) { return (c & 0x80) == 0; })) return {};
  const auto* value = wanted.find(name);
  const auto* now = applied != nullptr ? applied->find(name) : nullptr;
  if (applied != nullptr && (value == nullptr) == (now == nullptr) &&
      (value == nullptr || *value == *now)) {
    return {};
  }
  return value != nullptr ? setting_statement(name, *value) : "RESET client_encoding";
}

std::string quote_literal(std::string_view value) {
  std::string quoted = value.find('\\') == std::string_view::npos ? "'" : "E'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') quoted.push_back(c);
    quoted.push_back(c);
  }
  quoted.push_back('\'');
  return quoted;
}

std::string quote_setting_name(std::string_view name) {
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '.') {
      quoted += "\".\"";
    } else {
      if (c == '"') quoted.push_back('"');
      quoted.push_back(c);
    }
  }
  quoted.push_back('"');
  return quoted;
}

namespace {

// Splits as PostgreSQL's pg_split_opts: white space separates, a backslash escapes one character.
std::vector<std::string> split_options(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v') {
      if (in_word) words.push_back(std::exchange(word, {}));
      in_word = false;
      continue;
    }
    in_word = true;
    if (c == '\\') {
      if (i + 1 < text.size()) word.push_back(text[++i]);
    } else {
      word.push_back(c);
    }
  }
  if (in_word) words.push_back(word);
  return words;
}

std::string lower(std::string_view text) {
  std::string folded(text);
  for (char& c : folded) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return folded;
}

bool option_settings(std::string_view options, pairs& into) {
  const auto words = split_options(options);
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (word == "-c") {
      if (++i == words.size()) return false;
      word = words[i];
    } else if (word.starts_with("-c")) {
      word.remove_prefix(2);
    } else if (word.starts_with("--")) {
      word.remove_prefix(2);
    } else {
      return false;
    }
    const auto equals = word.find('=');
    if (equals == std::string_view::npos || equals == 0) return false;
    std::string name = lower(word.substr(0, equals));
    std::replace(name.begin(), name.end(), '-', '_');
    into.emplace_back(std::move(name), ":" + std::string(word.substr(equals + 1)));
  }
  return true;
}

}  // namespace

bool startup_settings(const pairs& parameters, pairs& into) {
  bool good = true;
  // As PostgreSQL does: parameters of their own come after `options`, and so win.
  for (const auto& [name, value] : parameters) {
    if (name == "options") good = option_settings(value, into) && good;
  }
  for (const auto& [name, value] : parameters) {
    if (name == "user" || name == "database" || name == "replication" || name == "options" ||
        name.starts_with("_pq_.")) {
      continue;
    }
    into.emplace_back(lower(name), ":" + value);
  }
  return good;
}

}  // namespace pgsled::session
