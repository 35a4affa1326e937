#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <tuple>

#include "common/config/checked.hpp"
#include "common/net/tls.hpp"

// What only several keys together show to be wrong.

namespace pgsled::config {
namespace {

struct host_set {
  int line = 0;                       // of the first entry
  std::map<std::uint32_t, int> all;   // shard → line of its first host
  std::set<std::uint32_t> primaries;  // shards with a host that is in use
};

std::map<std::string, host_set> check_databases(const checked_file& file, findings& found) {
  std::map<std::string, host_set> sets;
  std::set<std::string> in_use;   // by clients
  for (const auto& from : file.all("databases")) {
    if (from.has("name") && from.text("role") == "primary" && !from.flag("resharding_only")) {
      in_use.insert(from.text("name"));
    }
  }
  for (const auto& from : file.all("databases")) {
    if (!from.has("name")) continue;
    const auto name = from.text("name");
    const auto shard = from.as<std::uint32_t>("shard");
    auto& set = sets[name];
    if (set.line == 0) set.line = from.line;
    set.all.emplace(shard, from.line);
    if (from.text("role") != "primary") continue;
    if (from.flag("resharding_only") && in_use.contains(name)) continue;
    if (!set.primaries.insert(shard).second) {
      found.wrong(file.name, from.line, "databases",
                  fmt::format("database \"{}\" has a second primary for shard {}; only one is "
                              "allowed",
                              name, shard));
    }
  }
  for (const auto& [name, set] : sets) {
    std::uint32_t expected = 0;
    for (const auto& [shard, line] : set.all) {
      if (shard != expected) {
        found.wrong(file.name, line, "databases.shard",
                    fmt::format("database \"{}\" has no shard {}; shards are numbered from 0 "
                                "without gaps",
                                name, expected));
        break;
      }
      ++expected;
    }
    for (const auto& [shard, line] : set.all) {
      if (set.primaries.count(shard) == 0) {
        found.warn(file.name, line, "databases.role",
                   fmt::format("database \"{}\" has no host with role \"primary\" for shard {}: it "
                               "serves nothing there",
                               name, shard));
      }
    }
  }
  return sets;
}

void check_sharded_tables(const checked_file& file,
                          const std::map<std::string, host_set>& databases, findings& found) {
  const auto known = [&](const entry& from, const char* section) {
    if (!from.has("database") || databases.count(from.text("database")) != 0) return true;
    found.wrong(file.name, from.line_of("database"), fmt::format("{}.database", section),
                fmt::format("there is no database \"{}\" in [[databases]]", from.text("database")));
    return false;
  };
  std::set<std::tuple<std::string, std::string, std::string, std::string>> seen;
  for (const auto& from : file.all("sharded_tables")) {
    const bool database_known = known(from, "sharded_tables");
    const auto name = from.text("name"), column = from.text("column");
    if (column.empty()) {
      found.wrong(file.name, from.line, "sharded_tables.column",
                  "is missing; must be the column that chooses the shard");
    }
    // Without a name an entry stands for a column, and several columns are several entries.
    if (!seen.emplace(from.text("database"), from.text("schema"), name, name.empty() ? column : "")
             .second) {
      found.wrong(file.name, from.line, "sharded_tables",
                  fmt::format("a second entry for {} \"{}\" of database \"{}\"; only one is "
                              "allowed",
                              name.empty() ? "column" : "table", name.empty() ? column : name,
                              from.text("database")));
    }
    for (const auto& rule : from.nested) {
      if (rule.has("values") && (rule.has("start") || rule.has("end"))) {
        found.wrong(file.name, rule.line, "sharded_tables.mapping",
                    "has values and a range; only one of the two is allowed");
      }
      const auto shards = database_known ? databases.find(from.text("database")) : databases.end();
      const auto shard = rule.maybe<std::uint32_t>("shard");
      if (shard && shards != databases.end() && shards->second.all.count(*shard) == 0) {
        found.wrong(file.name, rule.line_of("shard"), "sharded_tables.mapping.shard",
                    fmt::format("database \"{}\" has no shard {}", shards->first, *shard));
      }
    }
  }
  for (const auto& rule : file.all("sharded_mappings")) {
    const auto shard = rule.maybe<std::uint32_t>("shard");
    if (!known(rule, "sharded_mappings") || !rule.has("database") || !shard) continue;
    if (databases.at(rule.text("database")).all.count(*shard) == 0) {
      found.wrong(file.name, rule.line_of("shard"), "sharded_mappings.shard",
                  fmt::format("database \"{}\" has no shard {}", rule.text("database"), *shard));
    }
  }
  check_older_mappings(file, found);
  for (const auto& from : file.all("omnisharded_tables")) known(from, "omnisharded_tables");
}

bool is_base64(std::string_view text, std::size_t bytes) {
  const std::size_t digits = (bytes * 4 + 2) / 3, padded = (bytes + 2) / 3 * 4;
  if (text.size() != padded) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool digit = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       (c >= '0' && c <= '9') || c == '+' || c == '/';
    if (i < digits ? !digit : c != '=') return false;
  }
  return true;
}

// SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>
bool is_verifier(std::string_view text) {
  constexpr std::string_view head = "SCRAM-SHA-256$";
  if (!text.starts_with(head)) return false;
  text.remove_prefix(head.size());
  const auto colon = text.find(':'), dollar = text.find('$');
  if (colon == std::string_view::npos || dollar == std::string_view::npos || colon > dollar) {
    return false;
  }
  const auto iterations = text.substr(0, colon), salt = text.substr(colon + 1, dollar - colon - 1);
  if (iterations.empty() || iterations.size() > 9 || iterations[0] == '0' ||
      iterations.find_first_not_of("0123456789") != std::string_view::npos) {
    return false;
  }
  bool salt_good = false;
  for (std::size_t bytes = 1; bytes <= 1024 && !salt_good; ++bytes) {
    salt_good = is_base64(salt, bytes);
  }
  const auto keys = text.substr(dollar + 1);
  const auto middle = keys.find(':');
  return salt_good && middle != std::string_view::npos && is_base64(keys.substr(0, middle), 32) &&
         is_base64(keys.substr(middle + 1), 32);
}

void check_users(const checked_file& file, const std::map<std::string, host_set>* databases,
                 const std::string& auth_type, const std::string& admin, findings& found) {
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto& from : file.all("users")) {
    if (!from.has("name")) continue;
    const auto name = from.text("name");
    std::vector<std::pair<std::string, int>> targets;
    if (const auto one = from.text("database"); !one.empty()) {
      targets.emplace_back(one, from.line_of("database"));
    }
    for (auto& one : from.texts("databases")) {
      targets.emplace_back(std::move(one), from.line_of("databases"));
    }
    std::set<std::string> own;
    for (const auto& [database, line] : targets) {
      if (database == admin) {
        found.warn(file.name, line, "users.database",
                   fmt::format("only the user of [admin] may use \"{}\": the entry of \"{}\" has "
                               "no effect there",
                               admin, name));
      } else if (databases != nullptr && databases->count(database) == 0) {
        found.wrong(file.name, line, "users.database",
                    fmt::format("user \"{}\" names the database \"{}\", which is not in "
                                "[[databases]]",
                                name, database));
      }
      if (own.insert(database).second && !seen.emplace(name, database).second) {
        found.wrong(file.name, from.line, "users",
                    fmt::format("a second entry of user \"{}\" for database \"{}\"; only one is "
                                "allowed",
                                name, database));
      }
    }
    if (from.flag("all_databases") && !seen.emplace(name, "\n").second) {
      found.wrong(file.name, from.line, "users",
                  fmt::format("a second entry of user \"{}\" for all databases", name));
    }
    if (targets.empty() && !from.flag("all_databases")) {
      found.warn(file.name, from.line, "users.database",
                 fmt::format("user \"{}\" exists in no database", name));
    }
    const auto passwords = from.texts("passwords");
    const bool password = from.has("password") || !passwords.empty();
    if (!password && !from.has("password_hash") && auth_type != "trust") {
      found.wrong(file.name, from.line, "users.password",
                  fmt::format("user \"{}\" has no password, passwords or password_hash; one is "
                              "needed unless auth_type is \"trust\"",
                              name));
    }
    if (from.has("password_hash") && !is_verifier(from.text("password_hash"))) {
      found.wrong(file.name, from.line_of("password_hash"), "users.password_hash",
                  "must be a verifier: SCRAM-SHA-256$iterations:salt$key:key, as `pgsled "
                  "hash-password` prints it");
    }
    if (!password && from.has("password_hash") && !from.has("server_password")) {
      found.warn(file.name, from.line, "users.server_password",
                 fmt::format("user \"{}\" has only a hash: servers must accept it without a "
                             "password, or have one in [[databases]]",
                             name));
    }
  }
}

void check_tls(const checked_file& file, findings& found) {
  const auto& from = file.only("general");
  const auto together = [&](const char* certificate, const char* key) {
    const bool first = !from.text(certificate).empty(), second = !from.text(key).empty();
    if (first == second) return;
    const auto* given = first ? certificate : key;
    found.wrong(file.name, from.line_of(given), fmt::format("general.{}", given),
                fmt::format("needs {} as well", first ? key : certificate));
  };
  together("tls_certificate", "tls_private_key");
  together("tls_server_certificate", "tls_server_private_key");
  if (from.flag("tls_client_required") && from.text("tls_certificate").empty()) {
    found.wrong(file.name, from.line_of("tls_client_required"), "general.tls_client_required",
                "needs tls_certificate and tls_private_key");
  }
}

}  // namespace

void check_tls_files(const checked_file& file, findings& found) {
  if (!file.readable) return;
  const auto& from = file.only("general");
  const auto readable = [&](const char* key) {
    const auto path = from.text(key);
    if (path.empty()) return true;
    std::ifstream stream(path, std::ios::binary);
    if (stream && stream.peek() != std::ifstream::traits_type::eof()) return true;
    found.wrong(file.name, from.line_of(key), fmt::format("general.{}", key),
                fmt::format("the file \"{}\" cannot be read", path));
    return false;
  };
  // As those who use them load them. A key that is not given is another mistake's.
  const auto usable = [&](const char* key, const auto& loaded) {
    if (loaded) return;
    const auto& why = loaded.error();
    found.wrong(file.name, from.line_of(key), fmt::format("general.{}", key),
                why.hint.empty() ? why.message : why.message + ". " + why.hint);
  };
  const auto pair = [&](const char* certificate, const char* key) {
    // Both are looked at, and told of, even if the first cannot be read.
    const bool certificate_is = readable(certificate);
    const bool key_is = readable(key);
    if (!certificate_is || !key_is) return;
    if (from.text(certificate).empty() || from.text(key).empty()) return;
    usable(certificate, net::tls_context::server(from.text(certificate), from.text(key)));
  };
  pair("tls_certificate", "tls_private_key");
  pair("tls_server_certificate", "tls_server_private_key");
  constexpr auto* authorities = "tls_server_ca_certificate";
  if (readable(authorities) && !from.text(authorities).empty()) {
    usable(authorities, net::tls_context::client("verify_ca", from.text(authorities), {}, {}));
  }
}

void cross_check(const checked_file& pgdog, const checked_file& users, const configuration& config,
                 findings& found) {
  std::map<std::string, host_set> databases;
  if (pgdog.readable) {
    databases = check_databases(pgdog, found);
    if (const auto taken = databases.find(config.admin.name); taken != databases.end()) {
      found.wrong(pgdog.name, taken->second.line, "databases.name",
                  fmt::format("\"{}\" is the name of the admin database (admin.name)",
                              config.admin.name));
    }
    check_sharded_tables(pgdog, databases, found);
    check_tls(pgdog, found);
  }
  if (!users.readable) return;
  // Without pgdog.toml's word on it nobody can say which databases or which auth_type there are.
  check_users(users, pgdog.readable ? &databases : nullptr,
              pgdog.readable ? config.general.auth_type : "trust", config.admin.name, found);
  if (pgdog.readable && config.admin.password.empty()) {
    found.warn(pgdog.name, pgdog.only("admin").line, "admin.password",
               "is not set: nobody can log in to the admin database");
  }
}

}  // namespace pgsled::config
