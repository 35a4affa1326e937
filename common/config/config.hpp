#pragma once
// pgdog.toml and users.toml: every setting of PgDog 0.1.54's schema plus sections [pgsled] and
// [resharding], each declared once in settings.cpp (name, type, default, allowed values, whether
// this version acts on it, help). Loading reports every mistake of both files together, with file,
// line and key. Pure apart from load(), which reads the two files and opens the TLS files they
// name.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::config {

inline constexpr std::int64_t never = -1;  // PgDog's 9223372036854775807 for durations and limits

struct general {             // the keys that are acted on; the others are checked and listed only
  std::string host = "0.0.0.0";
  std::uint16_t port = 6432;
  std::uint32_t workers = 0;   // 0: each frontend goes by its processors
  std::string openmetrics_host = "0.0.0.0", openmetrics_namespace;
  std::optional<std::uint16_t> openmetrics_port, healthcheck_port;
  std::int64_t shutdown_timeout = 60000;
  std::uint32_t default_pool_size = 10, min_pool_size = 1;
  std::string pooler_mode = "transaction";
  std::int64_t checkout_timeout = 5000, connect_timeout = 5000, connect_attempt_delay = 0;
  std::uint32_t connect_attempts = 1;
  std::int64_t idle_timeout = 60000, server_lifetime = 86400000, server_lifetime_jitter = 0;
  std::int64_t rollback_timeout = 5000, query_timeout = never, client_login_timeout = 60000;
  std::int64_t client_idle_timeout = never, client_idle_in_transaction_timeout = never;
  std::int64_t stats_period = 15000;
  std::int64_t query_size_limit = never, healthcheck_interval = 30000, healthcheck_timeout = 5000;
  std::string auth_type = "scram", tls_certificate, tls_private_key, tls_verify = "prefer";
  bool tls_client_required = false;
  std::int64_t tls_modified = 0;  // of all TLS files together; another number: one was replaced
  std::string tls_server_ca_certificate, tls_server_certificate, tls_server_private_key;
  bool log_connections = true, log_disconnections = true;
  bool two_phase_commit = true;
  std::optional<bool> two_phase_commit_auto;   // none: as two_phase_commit
  std::string log_level = "info", log_format = "text";
  std::string resharding_copy_format = "binary";   // or text
  std::uint32_t resharding_parallel_copies = 2;
  std::string pg_dump_path = "pg_dump";            // of [replication]
  std::int64_t cutover_traffic_stop_threshold = 1'000'000, cutover_replication_lag_threshold = 0;
  std::int64_t cutover_last_transaction_delay = 1000, cutover_timeout = 30'000;
  bool cutover_action_unsafe = false;              // cutover_timeout_action = "cutover"
};

struct database {            // a host in use; hosts of role replica and auto are named in
  std::string name, host;    // `unacted` and left out here
  std::uint16_t port = 5432;
  std::string database_name;       // filled in: = name
  std::string role = "primary";
  std::uint32_t shard = 0;
  std::optional<std::string> user, password, pooler_mode;
  std::optional<std::uint32_t> pool_size, min_pool_size;
  std::optional<std::int64_t> statement_timeout, lock_timeout, idle_timeout, server_lifetime,
      server_lifetime_jitter;
  std::optional<bool> read_only;
  bool resharding_only = false;    // the same of all hosts of a database
};

struct user {
  std::string name;
  std::vector<std::string> databases;  // database and databases together
  bool all_databases = false;
  std::vector<std::string> passwords;  // password and passwords together
  std::optional<std::string> password_hash, server_user, server_password, pooler_mode;
  std::optional<std::uint32_t> pool_size, min_pool_size;
  std::optional<std::int64_t> statement_timeout, lock_timeout, idle_timeout, server_lifetime,
      server_lifetime_jitter;
  std::optional<bool> read_only;
  bool schema_admin = false;
  std::optional<bool> two_phase_commit, two_phase_commit_auto;
};

struct sharded_table {
  std::string database, schema, name, column, data_type = "bigint";
  // False: look-up, centroids or type of a later version; statements on it are refused. A schema of
  // [[sharded_schemas]] is an entry without name and column: all its tables (schema empty: of all
  // schemas that are not named).
  bool acted_on = true;
  placement::hasher hasher = placement::hasher::postgres;
  std::optional<placement::mapping> mapping = {};   // by list and range; none: by hash
};

struct pgsled {              // [pgsled] in pgdog.toml: what PgDog has no key for
  std::string dispatch = "cached";       // cached, always
  std::string lane = "auto";             // auto, socket, pumped, relay
  std::string cross_shard_writes = "atomic";   // atomic, best_effort
  std::string unix_socket_dir;           // for clients; empty: none
  std::uint32_t max_client_conn = 0;     // 0: no limit
  std::uint64_t plan_cache_bytes = 16u << 20, statement_cache_bytes = 64u << 20;
  std::uint32_t prepared_statements_per_connection = 1000;
  std::uint32_t busy_poll = 100;         // microseconds
  std::int64_t recall_deadline = 750;
  std::int64_t resharding_copy_rate = 0;       // bytes a second, 0: no limit
  std::int64_t resharding_slot_limit = std::int64_t{64} << 30;   // bytes of log
};

struct resharding {          // [resharding] in pgdog.toml, which PgDog does not have either
  bool automatic = false;    // shards that are joining get their rows by themselves
  // Placements that RELOAD takes although they differ, as its refusal names them.
  std::vector<std::string> placed_by_hand;
};

struct admin { std::string name = "admin", user = "admin", password; };
struct tcp {
  bool keepalive = true;
  int time_ms = 0, interval_ms = 0, retries = 0, user_timeout_ms = 0;
};

struct setting_value {       // for SHOW CONFIG
  std::string name, value;
  bool acted_on = true, given = false;
};

struct configuration {
  config::general general;
  std::vector<config::database> databases;
  std::vector<config::user> users;
  std::vector<config::sharded_table> sharded_tables;
  config::pgsled pgsled;
  config::resharding resharding;
  config::admin admin;
  config::tcp tcp;
  // "file:line: key" of given keys this version ignores, each once
  std::vector<std::string> unacted;
  std::vector<setting_value> values;         // every scalar setting with its value in effect
};

struct mistake {
  std::string file;
  int line = 0;
  std::string key, text;                     // text says what is wrong and what is allowed
};
struct outcome {
  std::optional<configuration> config;       // only when there is no mistake
  std::vector<mistake> mistakes;
  std::vector<mistake> warnings;
};
// A missing file is a mistake that names it. Never throws.
outcome load(const std::string& pgdog_toml, const std::string& users_toml);
outcome parse(std::string_view pgdog_text, const std::string& pgdog_name,
              std::string_view users_text, const std::string& users_name);
std::string format(const std::vector<mistake>&);  // one line each: file:line: key: text

std::string markdown_reference();   // docs/configuration.md
std::string example_pgdog_toml();   // deploy/pgdog.example.toml
std::string example_users_toml();

}  // namespace pgsled::config
