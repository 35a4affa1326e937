#pragma once
// What the router tells each service about the configuration, and what a service says of itself.
// Sent as JSON in welcome/config and hello. Secrets only where they are needed: frontends get
// verifiers, poolers get the passwords of servers. All durations in milliseconds; 0 or negative
// "never" values are written as -1.

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::snapshot {

struct hello {
  std::string service;     // frontend, pooler, replicator, cli
  std::string instance;
  std::string version;
  std::int64_t pid = 0;
  std::string boot;        // random, new at each start
  std::string host;        // boot id of the kernel + network namespace: equal = same host
  std::string http;        // host:port of /metrics
  std::string lease_path;  // pooler: its SOCK_SEQPACKET socket
  std::string relay;       // pooler, replicator: its endpoint for frontends, empty if none
  std::string relay_key;   // of the same: its CURVE public key, empty if none
  std::vector<std::string> databases;  // pooler: serves only these; empty: all
  // What an earlier router gave, so that a new one changes nothing that is in use:
  std::uint32_t holder = 0;            // frontend worker: its number; 0: has none yet
  // pooler: pool id, and its budget, or the connections that it has when those are more
  std::vector<std::pair<std::uint32_t, std::uint32_t>> budgets;
};

struct user {              // one per (user, database)
  std::string name, database;
  std::string auth;        // scram, md5, plain, trust
  std::vector<std::string> verifiers;  // SCRAM-SHA-256$…, one per accepted password
  std::vector<std::string> md5;        // "md5" + hex, only when auth is md5
  std::string pooler_mode; // transaction, session, statement
  bool admin = false;      // may use the admin database
  // How what has written on several shards commits, explicit transactions and single statements:
  // atomic, one_by_one, refused.
  std::string commits = "atomic", commits_statement = "atomic";
  std::int64_t query_timeout = -1, client_idle_timeout = -1, idle_in_transaction_timeout = -1;
};

struct sharded_table {
  std::string schema;      // empty: any
  std::string name;        // empty: any table that has the column
  std::string column;
  std::string data_type;   // bigint, varchar, uuid
};

struct database {
  std::string name;
  std::uint32_t shards = 1;
  bool sharded = false;    // has sharded tables, or more than one shard
  bool admin = false;      // the virtual admin database
  // bucket → shard. Empty when not sharded, and for a sharded one while the map is not known:
  // statements with a key then wait. A shard that is not in it is joining: it gets DDL only.
  std::vector<std::uint32_t> bucket_map;
  std::uint64_t map_epoch = 0;  // of bucket_map, as stored on the shards
  // What plans name by id: lists and ranges of its tables, each once.
  std::vector<placement::mapping> mappings;
  std::uint64_t catalog = 0;  // another one: the catalogs differ, earlier plans are void
  std::string dispatch = "cached";
  // A job moves rows between shards: some may lie on two, and bucket_map says which count.
  bool moving = false;
  // Not empty: transactions that begin now wait before they touch these buckets, or write to all
  // shards. Who has none left that began before says so (in_effect::drained).
  std::string fence;
  std::vector<std::uint32_t> fenced;
  // Why no transaction may begin now, whatever it touches; empty: they may. With a fence, who has
  // none left that began before says so, too.
  std::string held;
  // A job moves all of it to other servers: without the router nothing runs.
  bool leaving = false;
  // Of the servers that have this name; another one: sessions that keep a connection of others end.
  std::uint64_t served = 0;
  bool resharding_only = false;  // no client may log in to it
};

struct pool_target {       // where a pool is served from
  std::string pooler;      // instance
  std::uint32_t budget = 0;
};

struct pool {              // user × database × shard × host × its database there
  std::uint32_t id = 0;    // stable while the five stay the same
  std::string user, database;
  std::uint32_t shard = 0;
  std::string host;        // for errors and SHOW
  std::uint16_t port = 5432;
  std::string role = "primary";
  std::vector<pool_target> targets;
};

struct pooler_ref {
  std::string instance, host, lease_path, relay, relay_key;
};

struct replicator_ref {    // who splits COPY; one that drains is not among them
  std::string instance, endpoint, key;
  bool operator==(const replicator_ref&) const = default;
};

struct frontend_settings {
  std::string host = "0.0.0.0";
  std::uint16_t port = 6432;
  std::string unix_socket_dir;          // empty: none
  std::uint32_t workers = 0;   // 0: by the processors it has
  std::string tls_certificate, tls_private_key;
  std::int64_t tls_modified = 0;        // another number: the files have been replaced
  bool tls_client_required = false;
  std::uint32_t max_client_conn = 0;    // 0: no limit
  std::int64_t client_login_timeout = 60000, checkout_timeout = 5000, shutdown_timeout = 60000;
  std::int64_t query_size_limit = -1;
  std::string lane = "auto";            // auto, socket, pumped, relay
  std::uint64_t plan_cache_bytes = 16u << 20;
  std::uint64_t statement_cache_bytes = 64u << 20;
  std::uint32_t prepared_statements_per_connection = 1000;
  std::uint32_t busy_poll = 0;          // microseconds
  bool log_connections = true, log_disconnections = true;
  bool tcp_keepalive = true;
  int tcp_time_s = 0, tcp_interval_s = 0, tcp_retries = 0, tcp_user_timeout_ms = 0;
  std::string log_level = "info", log_format = "text";
};

struct frontend {
  std::uint64_t epoch = 0;
  std::string version;
  std::uint32_t holder = 0;             // this worker's number, unique in the suite: in cancel keys
  std::string login_seed;               // of the salts of users that do not exist
  frontend_settings settings;
  std::vector<user> users;
  std::vector<database> databases;
  std::vector<pool> pools;
  std::vector<pooler_ref> poolers;
  std::vector<replicator_ref> replicators;
};

struct server_pool {
  std::uint32_t id = 0;
  std::string user, database;           // as clients know them
  std::uint32_t shard = 0;
  std::string host;
  std::uint16_t port = 5432;
  std::string server_database, server_user, server_password;
  std::string role = "primary";
  // Of the database's bucket map: who asks for leases by an older one gets none.
  std::uint64_t map_epoch = 0;
  std::uint32_t budget = 10;            // this pooler's share of the pool size
  std::uint32_t min_size = 0;           // this pooler's share
  std::vector<std::pair<std::string, std::string>> startup;  // statement_timeout, lock_timeout, …
  std::int64_t idle_timeout = 60000, server_lifetime = 86400000, server_lifetime_jitter = 0;
};

struct pooler_settings {
  std::string tls_verify = "prefer", tls_server_ca_certificate;
  std::string tls_server_certificate, tls_server_private_key;
  std::int64_t tls_modified = 0;
  std::int64_t connect_timeout = 5000, connect_attempt_delay = 0, checkout_timeout = 5000;
  std::uint32_t connect_attempts = 1;
  std::int64_t healthcheck_interval = 30000, healthcheck_timeout = 5000;
  std::int64_t rollback_timeout = 5000, recall_deadline = 750, shutdown_timeout = 60000;
  std::string lane = "auto";
  std::uint32_t busy_poll = 0;          // microseconds
  bool tcp_keepalive = true;
  int tcp_time_s = 0, tcp_interval_s = 0, tcp_retries = 0, tcp_user_timeout_ms = 0;
  std::string log_level = "info", log_format = "text";
};

struct pooler {
  std::uint64_t epoch = 0;
  std::string version;
  pooler_settings settings;
  std::vector<server_pool> pools;
  std::vector<std::string> relay_client_keys;  // CURVE public keys of frontends
  // Of all databases. While there is one, only these holders may have leases: one that the router
  // has not heard for long knows nothing of the fence. When the connections of others have ended
  // it says so (in_effect::drained).
  std::vector<std::string> fences, holders;
};

struct cluster_job {       // a move of all of `database` to the servers of `other`
  std::string database, other, job;
  bool operator==(const cluster_job&) const = default;
};

struct replicator {
  std::uint64_t epoch = 0;
  std::string version;
  std::vector<std::string> databases;   // those with tables sharded by hash: whose buckets may move
  // Moves that are registered, database and job: somebody has to go on with each.
  std::vector<std::pair<std::string, std::string>> moving;
  std::vector<cluster_job> clusters;    // the same of moves to other clusters; not in `moving`
  // Only for one replicator, if [resharding] automatic: databases with a shard that owns nothing,
  // and a number for the configuration, another one after each RELOAD.
  std::vector<std::pair<std::string, std::uint64_t>> joining;
  std::string log_level = "info", log_format = "text";
  std::int64_t shutdown_timeout = 60000;
  std::vector<std::string> relay_client_keys;  // CURVE public keys of frontends
};

// With the ack of a pooler or worker; an ack without it says the same as an empty one.
struct in_effect {
  // Pools that have more connections than their budget, because leases are not back yet, and how
  // many. Said again when it has changed.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> over;
  // Fences with nothing left behind them here. Said again when one more has come.
  std::vector<std::string> drained;
};

// Unknown keys are skipped and missing ones keep their defaults, so that versions can differ
// during a rolling upgrade. T is any of the structs above that travels whole.
template <class T>
std::string to_json(const T& value);
template <class T>
result<T> from_json(std::string_view text);

}  // namespace pgsled::snapshot
