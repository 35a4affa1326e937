#include "services/cli/pgbouncer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "services/cli/pgbouncer_files.hpp"

namespace pgsled::cli {
namespace {

// TOML's basic string.
std::string toml_string(std::string_view text) {
  std::string to = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') to.push_back('\\');
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      to += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      to.push_back(c);
    }
  }
  return to + '"';
}

class section_writer {
 public:
  section_writer(std::string& to, std::string_view header) : to_(to) {
    to_ += fmt::format("{}{}\n", to_.empty() ? "" : "\n", header);
  }
  void text(std::string_view key, std::string_view value) { raw(key, toml_string(value)); }
  void raw(std::string_view key, std::string_view value) {
    to_ += fmt::format("{} = {}\n", key, value);
  }

 private:
  std::string& to_;
};

// [pgbouncer]: keys that have no counterpart because pgsled needs none, with the reason.
struct unneeded {
  std::string_view key, why;
};
constexpr auto not_needed = std::to_array<unneeded>({
    {"logfile", "pgsled logs to its standard error"},
    {"pidfile", "not needed: `pgsled up` stays in the foreground"},
    {"user", "start pgsled as that user"},
    {"ignore_startup_parameters", "not needed: pgsled passes on what clients ask for"},
    {"server_reset_query", "not needed: what a client leaves behind is followed, or cleaned"},
    {"server_reset_query_always", "not needed"},
    {"server_check_query", "not needed: connections are checked by an empty query"},
    {"server_fast_close", "not needed: changed settings reach connections as they come back"},
    {"disable_pqexec", "there is no such switch"},
    {"max_packet_size", "bounds are fixed (ARCHITECTURE.md, Bounds)"},
    {"pkt_buf", "not needed"},
    {"listen_backlog", "not needed"},
    {"so_reuseport", "frontends always share their port"},
    {"sbuf_loopcnt", "not needed"},
    {"tcp_defer_accept", "not needed"},
    {"tcp_socket_buffer", "the kernel's own is used"},
    {"track_extra_parameters", "not needed: all settings of a session are followed"},
    {"syslog", "pgsled logs to its standard error"},
    {"syslog_facility", "pgsled logs to its standard error"},
    {"syslog_ident", "pgsled logs to its standard error"},
    {"log_stats", "read SHOW STATS or the metrics"},
    {"log_pooler_errors", "errors are counted by SQLSTATE in the metrics"},
    {"application_name_add_host", "there is no such switch"},
    {"conffile", "not needed"},
    {"service_name", "not needed"},
    {"auth_file", "its users are in users.toml"},
});

class importer {
 public:
  explicit importer(const pgbouncer_files& from) : from_(from) {
    lines_ = read_ini(from.ini, [this](std::size_t number, std::string_view text) {
      mistake(from_.ini_name, number, text);
    });
    listed_ = read_userlist(from.userlist, [this](std::size_t number, std::string_view text) {
      mistake(from_.userlist_name, number, text);
    });
  }

  imported run() && {
    general();
    databases();
    users();
    made_.notes = in_order(notes_);
    made_.mistakes = in_order(mistakes_);
    return std::move(made_);
  }

 private:
  using placed = std::vector<std::pair<std::size_t, std::string>>;   // by line

  // Those of the userlist come after those of the ini.
  static constexpr std::size_t behind = 1u << 30;

  static std::vector<std::string> in_order(placed& all) {
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::string> texts;
    for (auto& [line, text] : all) texts.push_back(std::move(text));
    return texts;
  }

  void note(const ini_line& of, std::string_view text) {
    notes_.emplace_back(of.number, fmt::format("{}:{}: {}: {}", from_.ini_name, of.number, of.key,
                                               text));
  }
  void note(std::string_view text) { notes_.emplace_back(0, std::string(text)); }
  void note(const listed_user& of, std::string_view text) {
    notes_.emplace_back(behind + of.number,
                        fmt::format("{}:{}: user {}: {}", from_.userlist_name, of.number,
                                    toml_string(of.name), text));
  }
  void mistake(const std::string& file, std::size_t number, std::string_view text) {
    mistakes_.emplace_back(number + (&file == &from_.userlist_name ? behind : 0),
                           fmt::format("{}:{}: {}", file, number, text));
  }

  // The last line of a key of [pgbouncer] counts.
  const ini_line* set(std::string_view key) {
    const ini_line* found = nullptr;
    for (const auto& one : lines_) {
      if (one.section == "pgbouncer" && one.key == key) found = &one;
    }
    used_.emplace_back(key);
    return found;
  }

  // Seconds, as PgBouncer has its times; none: not a number.
  static std::optional<double> seconds(const std::string& text) {
    double value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(value) ||
        value < 0 || value > 1e12) {
      return std::nullopt;
    }
    return value;
  }

  enum class zero { as_it_is, left_out, never };

  // `usual`: PgBouncer's default, in seconds.
  void time(section_writer& to, std::string_view key, std::string_view theirs, double usual,
            zero nothing) {
    const auto* given = set(theirs);
    const auto value = given != nullptr ? seconds(given->value) : std::optional(usual);
    if (!value) return mistake(from_.ini_name, given->number, "a time in seconds is expected");
    if (*value > 0) return to.raw(key, fmt::format("{:.0f}", *value * 1000));
    if (nothing == zero::never) to.raw(key, "9223372036854775807");
    if (nothing == zero::as_it_is) to.raw(key, "0");
  }

  void lifetime(section_writer& to) {
    time(to, "server_lifetime", "server_lifetime", 3600, zero::never);
    const auto* given = set("server_lifetime");
    if (given != nullptr && seconds(given->value) == 0) {
      note(*given, "0, a connection for each use, is not offered; became never");
    }
  }

  void count(section_writer& to, std::string_view key, std::string_view theirs,
             std::string_view usual) {
    const auto* given = set(theirs);
    const std::string value = given != nullptr ? given->value : std::string(usual);
    if (value.empty()) return;
    if (value.find_first_not_of("0123456789") != std::string::npos) {
      return mistake(from_.ini_name, given->number, "a number is expected");
    }
    to.raw(key, value);
  }

  void flag(section_writer& to, std::string_view key, std::string_view theirs) {
    const auto* given = set(theirs);
    const auto value = given != nullptr ? lower(given->value) : "1";
    to.raw(key, value == "0" || value == "no" || value == "off" || value == "false" ? "false"
                                                                                    : "true");
  }

  void general() {
    for (const auto& one : lines_) {
      if (one.key == "%include") {
        note(one, fmt::format("{} was not read; import a file that has all in it", one.value));
      } else if (one.section == "peers") {
        note(one, "not needed: a cancel finds its session by itself");
      } else if (one.section != "databases" && one.section != "pgbouncer" &&
                 one.section != "users") {
        note(one, fmt::format("section [{}] is not known", one.section));
      }
    }
    section_writer to(made_.pgdog, "[general]");
    address(to);
    count(to, "port", "listen_port", "6432");
    mode(to, "pooler_mode", set("pool_mode"), "session");
    count(to, "default_pool_size", "default_pool_size", "20");
    count(to, "min_pool_size", "min_pool_size", "0");
    authentication(to);
    time(to, "checkout_timeout", "query_wait_timeout", 120, zero::never);
    time(to, "connect_timeout", "server_connect_timeout", 15, zero::never);
    time(to, "connect_attempt_delay", "server_login_retry", 15, zero::as_it_is);
    time(to, "idle_timeout", "server_idle_timeout", 600, zero::never);
    lifetime(to);
    time(to, "healthcheck_interval", "server_check_delay", 30, zero::as_it_is);
    time(to, "query_timeout", "query_timeout", 0, zero::left_out);
    time(to, "client_login_timeout", "client_login_timeout", 60, zero::never);
    time(to, "client_idle_timeout", "client_idle_timeout", 0, zero::left_out);
    time(to, "client_idle_in_transaction_timeout", "idle_transaction_timeout", 0, zero::left_out);
    time(to, "stats_period", "stats_period", 60, zero::left_out);
    flag(to, "log_connections", "log_connections");
    flag(to, "log_disconnections", "log_disconnections");
    client_tls(to);
    server_tls(to);
    own_section();
    keepalive();
    admin();
    for (const auto& one : lines_) {
      if (one.section == "pgbouncer") left_over(one);
    }
  }

  void left_over(const ini_line& one) {
    if (std::find(used_.begin(), used_.end(), one.key) != used_.end()) return;
    const auto known = std::find_if(not_needed.begin(), not_needed.end(),
                                    [&](const auto& each) { return each.key == one.key; });
    note(one, known != not_needed.end() ? known->why : "was not carried over");
  }

  void address(section_writer& to) {
    const auto* given = set("listen_addr");
    if (given == nullptr || given->value.empty()) {
      to.text("host", "127.0.0.1");
      return note("listen_addr is not set: PgBouncer listens on its Unix socket only, pgsled also "
                  "on 127.0.0.1");
    }
    std::string value = given->value;
    if (const auto comma = value.find(','); comma != std::string::npos) {
      value = "*";
      note(*given, "pgsled listens on one address or on all: 0.0.0.0");
    }
    to.text("host", value == "*" ? "0.0.0.0" : value);
  }

  void mode(section_writer& to, std::string_view key, const ini_line* given,
            std::string_view usual) {
    const std::string value = given != nullptr ? lower(given->value) : std::string(usual);
    if (value != "session" && value != "transaction" && value != "statement") {
      return mistake(from_.ini_name, given->number, "pool_mode is session, transaction or "
                                                    "statement");
    }
    to.text(key, value);
  }

  void authentication(section_writer& to) {
    const auto* given = set("auth_type");
    const std::string value = given != nullptr ? lower(given->value) : "md5";
    if (value == "scram-sha-256" || value == "md5" || value == "plain" || value == "trust") {
      to.text("auth_type", value == "scram-sha-256" ? "scram" : value);
    } else {
      to.text("auth_type", "scram");
      note(*given, fmt::format("{} is not offered; clients log in by SCRAM with a password",
                               value));
    }
    for (const auto* key : {"auth_query", "auth_user", "auth_dbname", "auth_hba_file",
                            "auth_ident_file", "auth_ldap_options"}) {
      if (const auto* one = set(key)) {
        note(*one, "is not offered: list the users and their passwords in users.toml");
      }
    }
  }

  void client_tls(section_writer& to) {
    const auto* wanted = set("client_tls_sslmode");
    const auto* certificate = set("client_tls_cert_file");
    const auto* key = set("client_tls_key_file");
    const auto value = wanted != nullptr ? lower(wanted->value) : "disable";
    if (value == "disable") return;
    if (certificate != nullptr && key != nullptr) {
      to.text("tls_certificate", certificate->value);
      to.text("tls_private_key", key->value);
    }
    if (value != "allow" && value != "prefer") to.raw("tls_client_required", "true");
    if (value.starts_with("verify")) {
      note(*wanted, "certificates of clients are not checked; TLS is required, and the password");
    }
  }

  void server_tls(section_writer& to) {
    const auto* wanted = set("server_tls_sslmode");
    const auto value = wanted != nullptr ? lower(wanted->value) : "prefer";
    to.text("tls_verify", value == "disable"       ? "disabled"
                          : value == "verify-ca"   ? "verify_ca"
                          : value == "verify-full" ? "verify_full"
                                                   : "prefer");
    if (value == "require") {
      note(*wanted, "became `prefer`, which takes a connection without TLS where the server offers "
                    "none; verify_ca or verify_full insist on it");
    }
    for (const auto& [theirs, ours] :
         {std::pair{"server_tls_ca_file", "tls_server_ca_certificate"},
          std::pair{"server_tls_cert_file", "tls_server_certificate"},
          std::pair{"server_tls_key_file", "tls_server_private_key"}}) {
      if (const auto* given = set(theirs)) to.text(ours, given->value);
    }
  }

  void own_section() {
    section_writer to(made_.pgdog, "[pgsled]");
    count(to, "max_client_conn", "max_client_conn", "100");
    if (const auto* given = set("unix_socket_dir"); given != nullptr && !given->value.empty()) {
      to.text("unix_socket_dir", given->value);
    }
    const auto* given = set("max_prepared_statements");
    if (given == nullptr) return;
    if (given->value == "0") {
      note(*given, "named statements of the protocol always work in transaction mode");
    } else {
      count(to, "prepared_statements_per_connection", "max_prepared_statements", "");
    }
  }

  void keepalive() {
    section_writer to(made_.pgdog, "[tcp]");
    flag(to, "keepalive", "tcp_keepalive");
    for (const auto& [theirs, ours, unit] :
         {std::tuple{"tcp_keepidle", "time", "000"}, std::tuple{"tcp_keepintvl", "interval", "000"},
          std::tuple{"tcp_keepcnt", "retries", ""}, std::tuple{"tcp_user_timeout", "user_timeout",
                                                               ""}}) {
      const auto* given = set(theirs);
      if (given == nullptr || given->value == "0") continue;
      if (given->value.find_first_not_of("0123456789") != std::string::npos) {
        mistake(from_.ini_name, given->number, "a number is expected");
      } else {
        to.raw(ours, given->value + unit);
      }
    }
  }

  void admin() {
    const auto* admins = set("admin_users");
    if (const auto* stats = set("stats_users")) {
      note(*stats, "there is one user of the admin database");
    }
    if (admins == nullptr || trimmed(admins->value).empty()) return;
    const auto end = admins->value.find(',');
    const std::string name(trimmed(std::string_view(admins->value).substr(0, end)));
    section_writer to(made_.pgdog, "[admin]");
    to.text("name", "pgbouncer");
    to.text("user", name);
    if (end != std::string::npos) note(*admins, "only the first became the admin database's user");
    const auto known = std::find_if(listed_.begin(), listed_.end(),
                                    [&](const auto& one) { return one.name == name; });
    if (known != listed_.end() && is_password(known->secret)) {
      to.text("password", known->secret);
    } else {
      note(*admins, "the password is not known: set `password` in [admin]");
    }
  }

  static bool is_md5(std::string_view secret) {
    return secret.size() == 35 && secret.starts_with("md5") &&
           secret.find_first_not_of("0123456789abcdef", 3) == std::string_view::npos;
  }
  static bool is_password(std::string_view secret) {
    return !secret.empty() && !is_md5(secret) && !secret.starts_with("SCRAM-SHA-256$");
  }

  // A mistake is said once.
  std::map<std::string, std::string> pairs_of(const ini_line& of) {
    return read_pairs(of.value, [&](std::string_view text) {
      mistake(from_.ini_name, of.number, text);
    });
  }

  void databases() {
    bool any = false;
    for (const auto& one : lines_) {
      if (one.section != "databases") continue;
      auto pairs = pairs_of(one);
      if (one.key == "*") {
        note(one, "a database for all other names is not offered: name those that clients use");
        continue;
      }
      any = true;
      database(one, pairs);
    }
    if (!any) note("no database was carried over: add [[databases]] to pgdog.toml");
  }

  void database(const ini_line& of, std::map<std::string, std::string>& pairs) {
    section_writer to(made_.pgdog, "[[databases]]");
    to.text("name", of.key);
    const auto take = [&](const char* key) {
      auto found = pairs.extract(key);
      return found ? std::move(found.mapped()) : std::string();
    };
    auto host = take("host");
    if (const auto comma = host.find(','); comma != std::string::npos) {
      note(of, "has several hosts; only the first was taken, for pgsled they have to be replicas "
               "of it");
      host.resize(comma);
    }
    if (host.empty() || host.front() == '/') {
      note(of, "is reached by a Unix socket there; pgsled takes TCP to 127.0.0.1");
      host = "127.0.0.1";
    }
    to.text("host", host);
    const auto number = [&](const char* theirs, const char* ours) {
      const auto value = take(theirs);
      if (value.empty()) return;
      if (value.find_first_not_of("0123456789") != std::string::npos) {
        mistake(from_.ini_name, of.number, fmt::format("{}: a number is expected", theirs));
      } else {
        to.raw(ours, value);
      }
    };
    number("port", "port");
    if (const auto name = take("dbname"); !name.empty()) to.text("database_name", name);
    if (const auto user = take("user"); !user.empty()) to.text("user", user);
    if (const auto password = take("password"); !password.empty()) {
      if (is_password(password)) {
        to.text("password", password);
      } else {
        note(of, "its password is a hash, which does not log in to a server: set `password`");
      }
    }
    number("pool_size", "pool_size");
    number("min_pool_size", "min_pool_size");
    if (const auto value = take("pool_mode"); !value.empty()) {
      const ini_line given{of.section, of.key, value, of.number};
      mode(to, "pooler_mode", &given, "");
    }
    if (const auto value = take("server_lifetime"); !value.empty()) {
      const auto got = seconds(value);
      if (got) {
        to.raw("server_lifetime", fmt::format("{:.0f}", *got * 1000));
      } else {
        mistake(from_.ini_name, of.number, "server_lifetime: a time in seconds is expected");
      }
    }
    for (const auto& [key, value] : pairs) note(of, fmt::format("{} was not carried over", key));
  }

  void users() {
    std::map<std::string, const ini_line*> sections;
    for (const auto& one : lines_) {
      if (one.section == "users") sections[one.key] = &one;
    }
    for (const auto& one : listed_) {
      section_writer to(made_.users, "[[users]]");
      to.text("name", one.name);
      to.raw("all_databases", "true");
      if (is_md5(one.secret)) {
        note(one, "has an MD5 hash, from which no password can be made: set `password`");
      } else if (one.secret.starts_with("SCRAM-SHA-256$")) {
        to.text("password_hash", one.secret);
        note(one, "has a SCRAM verifier, which lets clients in but does not log in to a server: "
                  "set `server_password`");
      } else if (!one.secret.empty()) {
        to.text("password", one.secret);
      } else {
        note(one, "has no password: set `password`");
      }
      if (const auto found = sections.extract(one.name)) settings_of(to, *found.mapped());
    }
    for (const auto& [name, where] : sections) {
      note(*where, "is not in the list of users: add [[users]] to users.toml");
    }
    if (listed_.empty()) note("no user was carried over: add [[users]] to users.toml");
  }

  void settings_of(section_writer& to, const ini_line& of) {
    for (const auto& [key, value] : pairs_of(of)) {
      const bool is_number = value.find_first_not_of("0123456789") == std::string::npos;
      if (key == "pool_mode") {
        const ini_line given{of.section, of.key, value, of.number};
        mode(to, "pooler_mode", &given, "");
      } else if (key == "pool_size" && is_number && !value.empty()) {
        to.raw("pool_size", value);
      } else {
        note(of, fmt::format("{} was not carried over", key));
      }
    }
  }

  const pgbouncer_files& from_;
  std::vector<ini_line> lines_;
  std::vector<listed_user> listed_;
  std::vector<std::string> used_;
  placed notes_, mistakes_;
  imported made_;
};

}  // namespace

imported import_pgbouncer(const pgbouncer_files& files) { return importer(files).run(); }

}  // namespace pgsled::cli
