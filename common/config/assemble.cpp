#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "common/config/checked.hpp"

// From checked tables to the structs the router works with, and what of them has no effect.

namespace pgsled::config {
namespace {

// A RUST_LOG list: the directive without a module counts, all in all at least one level name.
std::string plain_level(const std::string& given, bool& partly) {
  std::string level;
  for (std::size_t at = 0; at <= given.size();) {
    const auto comma = std::min(given.find(',', at), given.size());
    std::string part = given.substr(at, comma - at);
    std::erase(part, ' ');
    std::transform(part.begin(), part.end(), part.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (part.find('=') != std::string::npos) {
      partly = true;
    } else if (part == "trace" || part == "debug" || part == "info" || part == "warn" ||
               part == "error" || part == "off") {
      level = part;
    } else if (!part.empty()) {
      return {};
    }
    at = comma + 1;
  }
  return level.empty() && partly ? "info" : level;
}

general make_general(const checked_file& file, findings& found) {
  const auto& from = file.only("general");
  general to;
  to.host = from.text("host");
  to.port = from.as<std::uint16_t>("port");
  if (const auto wanted = from.maybe<std::uint32_t>("workers")) to.workers = std::max(1u, *wanted);
  to.openmetrics_host = from.text("openmetrics_host");
  to.openmetrics_namespace = from.text("openmetrics_namespace");
  to.openmetrics_port = from.maybe<std::uint16_t>("openmetrics_port");
  to.healthcheck_port = from.maybe<std::uint16_t>("healthcheck_port");
  to.shutdown_timeout = from.number("shutdown_timeout");
  to.default_pool_size = from.as<std::uint32_t>("default_pool_size");
  to.min_pool_size = from.as<std::uint32_t>("min_pool_size");
  to.pooler_mode = from.text("pooler_mode");
  to.checkout_timeout = from.number("checkout_timeout");
  to.connect_timeout = from.number("connect_timeout");
  to.connect_attempt_delay = from.number("connect_attempt_delay");
  to.connect_attempts = std::max(1u, from.as<std::uint32_t>("connect_attempts"));
  to.idle_timeout = from.number("idle_timeout");
  to.server_lifetime = from.number("server_lifetime");
  to.server_lifetime_jitter = from.number("server_lifetime_jitter");
  to.rollback_timeout = from.number("rollback_timeout");
  to.query_timeout = from.number("query_timeout");
  to.client_login_timeout = from.number("client_login_timeout");
  to.client_idle_timeout = from.number("client_idle_timeout");
  to.client_idle_in_transaction_timeout = from.number("client_idle_in_transaction_timeout");
  to.stats_period = from.number("stats_period");
  to.healthcheck_interval = from.number("healthcheck_interval");
  to.healthcheck_timeout = from.number("healthcheck_timeout");
  to.auth_type = from.text("auth_type");
  to.tls_certificate = from.text("tls_certificate");
  to.tls_private_key = from.text("tls_private_key");
  to.tls_verify = from.text("tls_verify");
  to.tls_client_required = from.flag("tls_client_required");
  to.tls_server_ca_certificate = from.text("tls_server_ca_certificate");
  to.tls_server_certificate = from.text("tls_server_certificate");
  to.tls_server_private_key = from.text("tls_server_private_key");
  to.log_connections = from.flag("log_connections");
  to.log_disconnections = from.flag("log_disconnections");
  to.two_phase_commit = from.flag("two_phase_commit");
  to.two_phase_commit_auto = from.maybe_flag("two_phase_commit_auto");
  to.log_format = from.text("log_format");
  to.resharding_copy_format = from.text("resharding_copy_format");
  to.resharding_parallel_copies = static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(from.number("resharding_parallel_copies"), 1, 32));
  to.pg_dump_path = file.only("replication").text("pg_dump_path");
  to.cutover_traffic_stop_threshold = from.number("cutover_traffic_stop_threshold");
  to.cutover_replication_lag_threshold = from.number("cutover_replication_lag_threshold");
  to.cutover_last_transaction_delay = from.number("cutover_last_transaction_delay");
  to.cutover_timeout = from.number("cutover_timeout");
  to.cutover_action_unsafe = from.text("cutover_timeout_action") == "cutover";

  // A limit that would only warn must not refuse: left out until warning is there.
  if (from.text("query_size_limit_action") == "block") {
    to.query_size_limit = from.number("query_size_limit");
  } else {
    for (const auto* key : {"query_size_limit", "query_size_limit_action"}) {
      if (from.has(key)) {
        found.unacted(file.name, from.line_of(key), fmt::format("general.{} (warn)", key));
      }
    }
  }
  bool partly = false;
  to.log_level = plain_level(from.text("log_level"), partly);
  if (to.log_level.empty()) {
    found.wrong(file.name, from.line_of("log_level"), "general.log_level",
                "must be a level: trace, debug, info, warn, error, off");
    to.log_level = "info";
  } else if (partly) {
    found.unacted(file.name, from.line_of("log_level"), "general.log_level (levels of modules)");
  }
  return to;
}

// Sizes and times that databases and users share; `_primary` goes before the plain key, and every
// host in use is a primary.
template <class T>
void read_overrides(const entry& from, T& to) {
  const auto either = [&]<class Integer>(const char* first, const char* second, Integer) {
    const auto value = from.maybe<Integer>(first);
    return value ? value : from.maybe<Integer>(second);
  };
  to.pool_size = either("pool_size_primary", "pool_size", std::uint32_t{});
  to.min_pool_size = either("min_pool_size_primary", "min_pool_size", std::uint32_t{});
  to.idle_timeout = either("idle_timeout_primary", "idle_timeout", std::int64_t{});
  to.pooler_mode = from.maybe_text("pooler_mode");
  to.statement_timeout = from.maybe_number("statement_timeout");
  to.lock_timeout = from.maybe_number("lock_timeout");
  to.server_lifetime = from.maybe_number("server_lifetime");
  to.server_lifetime_jitter = from.maybe_number("server_lifetime_jitter");
  to.read_only = from.maybe_flag("read_only");
}

void read_databases(const checked_file& file, configuration& to, findings& found) {
  // Single hosts of a database that clients use are left out when they are for resharding only.
  std::set<std::string> in_use;
  for (const auto& from : file.all("databases")) {
    if (from.has("name") && from.text("role") == "primary" && !from.flag("resharding_only")) {
      in_use.insert(from.text("name"));
    }
  }
  for (const auto& from : file.all("databases")) {
    if (from.text("role") != "primary") {
      found.unacted(file.name, from.line_of("role"),
                    fmt::format("databases.role = \"{}\"", from.text("role")));
      continue;
    }
    if (from.flag("resharding_only") && in_use.contains(from.text("name"))) {
      found.unacted(file.name, from.line_of("resharding_only"), "databases.resharding_only");
      continue;
    }
    if (!from.has("name") || !from.has("host")) continue;
    database one;
    one.name = from.text("name");
    one.host = from.text("host");
    one.port = from.as<std::uint16_t>("port");
    one.database_name = from.maybe_text("database_name").value_or(one.name);
    one.shard = from.as<std::uint32_t>("shard");
    one.user = from.maybe_text("user");
    one.password = from.maybe_text("password");
    read_overrides(from, one);
    one.resharding_only = from.flag("resharding_only");
    to.databases.push_back(std::move(one));
  }
}

void read_users(const checked_file& file, configuration& to, findings& found) {
  for (const auto& from : file.all("users")) {
    if (from.text("server_auth") != "password") {
      found.unacted(file.name, from.line_of("server_auth"),
                    fmt::format("users.server_auth = \"{}\"", from.text("server_auth")));
    }
    if (!from.has("name")) continue;
    user one;
    one.name = from.text("name");
    if (const auto name = from.text("database"); !name.empty()) one.databases.push_back(name);
    for (auto& name : from.texts("databases")) {
      if (std::find(one.databases.begin(), one.databases.end(), name) == one.databases.end()) {
        one.databases.push_back(std::move(name));
      }
    }
    one.all_databases = from.flag("all_databases");
    if (auto password = from.maybe_text("password")) one.passwords.push_back(std::move(*password));
    for (auto& password : from.texts("passwords")) one.passwords.push_back(std::move(password));
    one.password_hash = from.maybe_text("password_hash");
    one.server_user = from.maybe_text("server_user");
    one.server_password = from.maybe_text("server_password");
    one.schema_admin = from.flag("schema_admin");
    one.two_phase_commit = from.maybe_flag("two_phase_commit");
    one.two_phase_commit_auto = from.maybe_flag("two_phase_commit_auto");
    read_overrides(from, one);
    to.users.push_back(std::move(one));
  }
}

void read_sharded_tables(const checked_file& file, configuration& to, findings& found) {
  for (const auto& from : file.all("sharded_tables")) {
    sharded_table one;
    one.database = from.text("database");
    one.schema = from.text("schema");
    one.name = from.text("name");
    one.column = from.text("column");
    one.data_type = from.text("data_type");
    const auto type = placement::key_type_of(one.data_type);
    if (!type) {
      one.acted_on = false;
      found.unacted(file.name, from.line_of("data_type"),
                    fmt::format("sharded_tables.data_type = \"{}\"", one.data_type));
    }
    one.hasher = *placement::hasher_of(from.text("hasher"));
    for (const auto* key : {"lookup_query", "centroids", "centroids_path"}) {
      if (from.has(key)) one.acted_on = false;
    }
    if (type) one.mapping = read_mapping(file, from, *type, found);
    to.sharded_tables.push_back(std::move(one));
  }
  for (const auto& from : file.all("sharded_schemas")) {
    // No name and no column: every table of the schema, and statements on those are refused.
    to.sharded_tables.push_back({from.text("database"), from.text("name"), "", "", "", false});
  }
}

void read_rest(const checked_file& file, const checked_file& users, configuration& to) {
  const auto& own = file.only("pgsled");
  to.pgsled.dispatch = own.text("dispatch");
  to.pgsled.lane = own.text("lane");
  to.pgsled.cross_shard_writes = own.text("cross_shard_writes");
  to.pgsled.unix_socket_dir = own.text("unix_socket_dir");
  to.pgsled.max_client_conn = own.as<std::uint32_t>("max_client_conn");
  to.pgsled.plan_cache_bytes = own.as<std::uint64_t>("plan_cache_bytes");
  to.pgsled.statement_cache_bytes = own.as<std::uint64_t>("statement_cache_bytes");
  to.pgsled.prepared_statements_per_connection =
      own.as<std::uint32_t>("prepared_statements_per_connection");
  to.pgsled.busy_poll = own.as<std::uint32_t>("busy_poll");
  to.pgsled.recall_deadline = own.number("recall_deadline");
  to.pgsled.resharding_copy_rate = own.number("resharding_copy_rate");
  to.pgsled.resharding_slot_limit = own.number("resharding_slot_limit");
  to.resharding.automatic = file.only("resharding").flag("automatic");
  to.resharding.placed_by_hand = file.only("resharding").texts("placed_by_hand");

  const auto& theirs = users.only("admin");
  const auto& admin = theirs.line > 0 ? theirs : file.only("admin");
  to.admin = {admin.text("name"), admin.text("user"), admin.text("password")};

  const auto& tcp = file.only("tcp");
  to.tcp.keepalive = tcp.flag("keepalive");
  to.tcp.time_ms = tcp.maybe<int>("time").value_or(0);
  to.tcp.interval_ms = tcp.maybe<int>("interval").value_or(0);
  to.tcp.retries = tcp.maybe<int>("retries").value_or(0);
  to.tcp.user_timeout_ms = tcp.maybe<int>("user_timeout").value_or(0);
}

void list_values(const checked_file& file, const checked_file& users, configuration& to,
                 const findings& found) {
  const bool users_admin = users.only("admin").line > 0;
  for (const auto& section : pgdog_sections()) {
    if (section.repeated) continue;
    const bool replaced = section.name == "admin" && users_admin;
    const auto& from = replaced ? users.only("admin") : file.only(section.name);
    for (const auto& setting : section.settings) {
      const std::string name = section.name == "general"
                                   ? std::string(setting.name)
                                   : fmt::format("{}.{}", section.name, setting.name);
      to.values.push_back(
          {name, from.shown(setting), setting.acted_on, from.has(setting.name)});
    }
  }
  for (const auto& one : found.ignored) {
    const auto place = fmt::format("{}:{}", one.file, one.line);
    const auto more = one.times > 1 ? fmt::format(" (and {} more)", one.times - 1) : "";
    to.unacted.push_back(fmt::format("{}: {}{}", place, one.key, more));
    const auto name = one.key.starts_with("general.") ? one.key.substr(8) : one.key;
    if (std::none_of(to.values.begin(), to.values.end(),
                     [&](const setting_value& value) { return value.name == name; })) {
      to.values.push_back({one.key, "given at " + place + more, false, true});
    }
  }
}

}  // namespace

configuration assemble(const checked_file& pgdog, const checked_file& users, findings& found) {
  configuration to;
  to.general = make_general(pgdog, found);
  read_databases(pgdog, to, found);
  read_users(users, to, found);
  read_sharded_tables(pgdog, to, found);
  read_rest(pgdog, users, to);
  list_values(pgdog, users, to, found);
  return to;
}

}  // namespace pgsled::config
