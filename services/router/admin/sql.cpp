#include "services/router/admin/sql.hpp"

#include <algorithm>
#include <array>

namespace pgsled::router {

namespace {

constexpr std::size_t max_words = 64;
constexpr const char* help_hint = "SHOW HELP lists what this version knows.";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
std::string upper(std::string_view word) {
  std::string made(word);
  for (char& c : made) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return made;
}
bool space(char c) { return std::string_view(" \t\n\r\f\v").find(c) != std::string_view::npos; }

// Words in lower case, quoted ones as they are, commas and = as words of their own; comments and
// a trailing semicolon left out. False: unterminated quote or comment, or too much.
bool split(std::string_view sql, std::vector<std::string>& words) {
  std::size_t at = 0;
  while (at < sql.size()) {
    if (space(sql[at])) { ++at; continue; }
    if (sql.substr(at, 2) == "--") {
      at = std::min(sql.find('\n', at), sql.size());
      continue;
    }
    if (sql.substr(at, 2) == "/*") {
      const std::size_t end = sql.find("*/", at + 2);
      if (end == std::string_view::npos) return false;
      at = end + 2;
      continue;
    }
    if (words.size() >= max_words) return false;
    const char c = sql[at];
    if (c == '\'' || c == '"') {
      const std::size_t end = sql.find(c, at + 1);
      if (end == std::string_view::npos) return false;
      words.emplace_back(sql.substr(at + 1, end - at - 1));
      at = end + 1;
    } else if (c == ',' || c == '=' || c == ';') {
      words.emplace_back(1, c);
      ++at;
    } else {
      std::string word;
      while (at < sql.size() && !space(sql[at]) &&
             std::string_view(",=;'\"").find(sql[at]) == std::string_view::npos) {
        word += lower(sql[at++]);
      }
      words.push_back(std::move(word));
    }
  }
  while (!words.empty() && words.back() == ";") words.pop_back();
  return std::find(words.begin(), words.end(), ";") == words.end();
}

// What drivers set on every connection; it means nothing here.
bool session_setting(const std::string& name) {
  static constexpr std::array<std::string_view, 14> names{
      "application_name", "bytea_output", "client_encoding", "client_min_messages", "datestyle",
      "extra_float_digits", "idle_in_transaction_session_timeout", "intervalstyle", "lock_timeout",
      "search_path", "session", "standard_conforming_strings", "statement_timeout", "timezone"};
  return std::find(names.begin(), names.end(), name) != names.end() || name == "names";
}

bool later_command(const std::string& word) {
  static constexpr std::array<std::string_view, 12> words{
      "pause", "resume", "maintenance", "reconnect", "ban", "unban", "healthcheck", "probe",
      "set", "reset", "setup", "kill"};
  return std::find(words.begin(), words.end(), word) != words.end();
}

// verb source destination publication [slot], its words from `at` on. The names of publication and
// slots are pgsled's own.
result<admin_statement> of_two_clusters(const std::vector<std::string>& words, std::size_t at,
                                        std::string usage) {
  const bool of_shard = words.size() > 2 && words[2] == "shard" &&
                        (words[1] == "add" || words[1] == "remove");
  if ((words.size() != at + 3 && words.size() != at + 4) || of_shard) {
    return failure("42601", words[0] + " needs source, destination and publication",
                   std::move(usage));
  }
  admin_statement made;
  made.database = words[at];
  made.to = words[at + 1];
  made.tag = upper(words[0]);
  return made;
}

// RESHARD source destination publication [slot], and COPY_DATA, which waits for CUTOVER.
result<admin_statement> to_other_cluster(const std::vector<std::string>& words, const char* when) {
  auto made = of_two_clusters(words, 1, "RESHARD source destination publication [slot]; in place: "
                                        "RESHARD ADD SHARD database [shard], RESHARD REMOVE SHARD "
                                        "database shard, RESHARD REBALANCE database.");
  if (!made) return made;
  made->verb = admin_statement::command::reshard;
  made->what = "new-cluster";
  made->cutover = when;
  return made;
}

// SCHEMA_SYNC pre | post | cutover source destination publication [slot]. The copy sets indexes and
// foreign keys aside and makes them again itself, and the change of sides sets the sequences: after
// `pre` there is nothing to do but to know the task that does it.
result<admin_statement> schema_sync(const std::vector<std::string>& words) {
  constexpr const char* usage =
      "SCHEMA_SYNC pre | post | cutover source destination publication [slot]";
  const auto phase = words.size() > 1 ? words[1] : std::string();
  if (phase != "pre" && phase != "post" && phase != "cutover") {
    return failure("42601", "SCHEMA_SYNC needs a phase: pre, post or cutover", usage);
  }
  auto made = of_two_clusters(words, 2, usage);
  if (!made) return made;
  made->verb = phase == "pre" ? admin_statement::command::reshard
                              : admin_statement::command::follow;
  made->what = "schema-sync";
  return made;
}

// REPLICATE source destination publication [slot]. Without the copy that goes with it a stream would
// leave out what was there before.
result<admin_statement> replicate(const std::vector<std::string>& words) {
  auto made = of_two_clusters(words, 1, "REPLICATE source destination publication [slot]");
  if (made) made->verb = admin_statement::command::follow;
  return made;
}

// RESHARD ADD SHARD database [shard] | REMOVE SHARD database shard | REBALANCE database. PgDog's
// own RESHARD source destination publication [slot] begins with names.
result<admin_statement> reshard(const std::vector<std::string>& words) {
  admin_statement made;
  made.verb = admin_statement::command::reshard;
  made.tag = "RESHARD";
  const auto number = [&](std::size_t at) {
    return words.size() == at + 1 && !words[at].empty() && words[at].size() <= 4 &&
           words[at].find_first_not_of("0123456789") == std::string::npos;
  };
  const bool of_shard = words.size() > 3 && words[2] == "shard";
  if (of_shard && words[1] == "add" && (words.size() == 4 || number(4))) {
    made.what = "add-shard";
  } else if (of_shard && words[1] == "remove" && number(4)) {
    made.what = "remove-shard";
  } else if (words.size() == 3 && words[1] == "rebalance") {
    made.what = "rebalance";
    made.database = words[2];
    return made;
  } else {
    return to_other_cluster(words, "automatic");
  }
  made.database = words[3];
  if (words.size() == 5) made.shard = words[4];
  return made;
}

admin_statement quiet(std::string tag) {
  admin_statement made;
  made.verb = admin_statement::command::quiet;
  made.tag = std::move(tag);
  return made;
}

result<admin_statement> show(const std::vector<std::string>& words) {
  admin_statement made;
  if (words.size() < 2) return failure("42601", "SHOW needs a name", help_hint);
  made.what = words[1];
  std::transform(made.what.begin(), made.what.end(), made.what.begin(), lower);
  for (std::size_t i = 2; i < words.size(); ++i) {
    const bool comma = words[i] == ",";
    if (comma == (i % 2 == 0)) {
      return failure("42601", "SHOW " + made.what + ": columns are a list with commas");
    }
    if (!comma) made.columns.push_back(words[i]);
  }
  return made;
}

}  // namespace

result<admin_statement> read_admin_statement(std::string_view sql) {
  std::vector<std::string> words;
  if (!split(sql, words)) {
    return failure("42601", "one admin command at a time, with its quotes closed", help_hint);
  }
  if (words.empty()) return quiet("");
  const std::string& verb = words[0];
  if (verb == "show") return show(words);
  if (verb == "help") return show({"show", "help"});
  admin_statement made;
  if (words.size() == 1 && (verb == "reload" || verb == "shutdown")) {
    made.verb = verb == "reload" ? admin_statement::command::reload
                                 : admin_statement::command::shutdown;
    made.tag = verb == "reload" ? "RELOAD" : "SHUTDOWN";
    return made;
  }
  if (verb == "select" && words.size() == 2 && words[1] == "1") {
    made.verb = admin_statement::command::select_one;
    return made;
  }
  if (verb == "begin" || verb == "commit" || verb == "rollback") {
    return quiet(upper(verb));
  }
  if (verb == "discard" && words.size() == 2 && words[1] == "all") return quiet("DISCARD ALL");
  if (verb == "reset" && words.size() == 2 && words[1] == "all") return quiet("RESET");
  if (verb == "set" && words.size() > 2 && session_setting(words[1])) return quiet("SET");
  if (verb == "reshard") return reshard(words);
  if (verb == "copy_data") return to_other_cluster(words, "wait");
  if (verb == "schema_sync") return schema_sync(words);
  if (verb == "replicate") return replicate(words);
  if (verb == "cutover" && words.size() <= 2) {
    made.verb = admin_statement::command::cutover;
    if (words.size() == 2) made.what = words[1];
    return made;
  }
  if (verb == "stop_task") {
    if (words.size() != 2) {
      return failure("42601", "STOP_TASK needs the id of a task", "SHOW TASKS lists them.");
    }
    made.verb = admin_statement::command::stop_task;
    made.what = words[1];
    return made;
  }
  if (later_command(verb)) {
    return failure("0A000", "this version does not support \"" + verb + "\" yet", help_hint);
  }
  return failure("42601", "unknown admin command \"" + verb.substr(0, 64) + "\"", help_hint);
}

}  // namespace pgsled::router
