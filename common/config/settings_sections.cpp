#include <array>

#include "common/config/schema.hpp"

namespace pgsled::config {
namespace {

constexpr std::string_view modes = "transaction|session|statement";
constexpr std::int64_t most_shards = 1023;   // sequences step by 1024, see design of identifiers
constexpr std::int64_t most_connections = 100'000;
constexpr std::int64_t largest_int = std::numeric_limits<int>::max();

constexpr auto databases = std::to_array<setting>({
    text("name", "", "Name clients use. Entries of one name are the hosts of one database.").must(),
    text("host", "", "Host name or address of the PostgreSQL server.").must(),
    port("port", "5432", "Its port."),
    text("database_name", "", "Name of the database on the server; none: `name`."),
    choice("role", "primary|replica|auto", "primary",
           "`replica` and `auto` hosts are accepted and not used yet."),
    count("shard", "0", 0, most_shards, "Number of the shard; a database's start at 0, no gaps."),
    text("user", "", "User for the server; none: the client's, or `server_user`."),
    text("password", "", "Password for the server; none: the one in users.toml.").hidden(),
    count("pool_size", "", 1, most_connections, "Overrides `general.default_pool_size`.")
        .also("max_pool_size"),
    count("pool_size_primary", "", 1, most_connections, "The same, for primaries only."),
    count("pool_size_replica", "", 1, most_connections, "The same, for replicas only.").later(),
    count("min_pool_size", "", 0, most_connections, "Overrides `general.min_pool_size`."),
    count("min_pool_size_primary", "", 0, most_connections, "The same, for primaries only."),
    count("min_pool_size_replica", "", 0, most_connections, "The same, for replicas only.")
        .later(),
    choice("pooler_mode", modes, "", "Overrides `general.pooler_mode`."),
    duration("statement_timeout", "", "`statement_timeout` of server connections.")
        .up_to(largest_int),
    duration("lock_timeout", "", "`lock_timeout` of server connections.").up_to(largest_int),
    duration("idle_timeout", "", "Overrides `general.idle_timeout`."),
    duration("idle_timeout_primary", "", "The same, for primaries only."),
    duration("idle_timeout_replica", "", "The same, for replicas only.").later(),
    duration("server_lifetime", "", "Overrides `general.server_lifetime`."),
    duration("server_lifetime_jitter", "", "Overrides `general.server_lifetime_jitter`."),
    flag("read_only", "", "Server connections begin with `default_transaction_read_only = on`."),
    count("lb_weight", "255", 0, 255, "Weight for `weighted_round_robin`.").later(),
    flag("resharding_only", "false",
         "The database is there to be moved to: clients may not log in to it. To be said of all "
         "of its hosts."),
});

constexpr auto admin = std::to_array<setting>({
    text("name", "admin", "Name of the virtual database with the views of the suite."),
    text("user", "admin", "User that may connect to it."),
    text("password", "", "Its password; none: nobody can log in to it.").hidden(),
});

constexpr auto rewrite = std::to_array<setting>({
    flag("enabled", "false", "Rewrite statements that cannot run on shards as they are.").later(),
    choice("shard_key", "ignore|error|rewrite|rewrite_omni", "error",
           "UPDATE that changes the sharding key.")
        .later(),
    choice("split_inserts", "ignore|error|rewrite|rewrite_omni", "error",
           "INSERT whose rows belong to several shards.")
        .later(),
    choice("primary_key", "ignore|error|rewrite|rewrite_omni", "ignore",
           "INSERT without a value for the primary key.")
        .later(),
});

constexpr auto tcp = std::to_array<setting>({
    flag("keepalive", "true", "TCP keep-alive on connections of clients and servers."),
    count("time", "", 0, largest_int, "Milliseconds of silence before the first probe."),
    count("interval", "", 0, largest_int, "Milliseconds between probes."),
    count("retries", "", 0, 127, "Probes without answer before the connection is given up."),
    count("user_timeout", "", 0, largest_int,
          "Milliseconds that sent bytes may stay unacknowledged."),
    text("congestion_control", "", "Congestion control of the kernel to ask for.").later(),
});

constexpr auto memory = std::to_array<setting>({
    count("net_buffer", "4096", 0, largest, "Bytes of PgDog's socket buffers.").later(),
    count("message_buffer", "4096", 0, largest, "Bytes of PgDog's message buffers.").later(),
    count("stack_size", "2097152", 0, largest, "Bytes of stack of PgDog's threads.").later(),
});

constexpr auto multi_tenant = std::to_array<setting>({
    text("column", "", "Column every statement has to filter by.").must().later(),
});

constexpr auto otel = std::to_array<setting>({
    text("endpoint", "", "Where series are pushed to.").later(),
    of_type("headers", value_type::string_map, "HTTP headers sent along.").later(),
    text("namespace", "pgdog", "Put before the names.").later(),
    duration("push_interval", "10000", "Pause between two pushes.").later(),
    text("datadog_api_key", "", "Key for Datadog.").later().hidden(),
});

constexpr auto vault = std::to_array<setting>({
    text("url", "", "Address of the Vault server.").must().later(),
    choice("auth_method", "kubernetes|approle", "", "How to log in there.").must().later(),
    text("auth_mount", "", "Where that method is mounted.").later(),
    text("approle_role_id", "", "Role of AppRole.").later(),
    text("approle_secret_id_file", "", "File with its secret.").later(),
    text("kubernetes_role", "", "Role of Kubernetes.").later(),
    text("kubernetes_jwt_path", "", "File with its token.").later(),
    count("client_token_ttl", "", 0, largest, "Life of the log-in, seconds.").later(),
    text("namespace", "", "Vault namespace.").later(),
});

constexpr auto replication = std::to_array<setting>({
    text("pg_dump_path", "pg_dump",
         "The pg_dump to copy table definitions with; it must not be older than the servers. As "
         "it is: the oldest of Debian's that is not, else what PATH names."),
});

constexpr auto replica_lag = std::to_array<setting>({
    duration("check_interval", "", "Pause between two looks at the lag.").later(),
    duration("max_age", "", "Lag from which a replica is left out.").later(),
});

constexpr auto query_parsers = std::to_array<setting>({
    text("database", "", "Database the entry is for.").must().later(),
    choice("level", "on|off|auto|session_control|session_control_and_locks", "auto",
           "Overrides `general.query_parser`.")
        .later(),
    choice("engine", "pg_query_protobuf|pg_query_raw", "pg_query_protobuf",
           "Overrides `general.query_parser_engine`.")
        .later(),
});

constexpr auto plugins = std::to_array<setting>({
    text("name", "", "Name of the library.").must().later(),
    text("config", "", "File handed to it.").later(),
});

constexpr auto mirroring = std::to_array<setting>({
    text("source_db", "", "Database whose statements are repeated.").must().later(),
    text("destination_db", "", "Database they are repeated on.").must().later(),
    count("queue_length", "", 0, largest, "Overrides `general.mirror_queue`.").later(),
    number("exposure", "", 0, 1, "Overrides `general.mirror_exposure`.").later(),
    choice("level", "all|ddl|dml", "all", "Which statements are repeated.").later(),
});

constexpr auto mapping = std::to_array<setting>({
    of_type("values", value_type::scalars, "Values that belong to the shard."),
    of_type("start", value_type::scalar, "First value of a range; none: there is no lowest."),
    of_type("end", value_type::scalar, "First value after a range; none: there is no highest."),
    setting{.name = "shard", .type = value_type::integer, .help = "The shard.", .max = most_shards,
            .required = true},
});
constexpr section mapping_section{.name = "sharded_tables.mapping", .repeated = true,
                                  .help = "Placement by list or range instead of by hash: lists go "
                                          "before ranges, and an entry with nothing but `shard` is "
                                          "for what is in neither. Other values are refused. Texts "
                                          "are in order of their bytes.",
                                  .settings = mapping};

constexpr auto sharded_tables = std::to_array<setting>({
    text("database", "", "Database the table belongs to.").must(),
    text("schema", "", "Schema of the table; none: any."),
    text("name", "", "Name of the table; none: every table with the column."),
    text("column", "", "Column whose value chooses the shard."),
    choice("data_type", "bigint|uuid|varchar|vector", "bigint",
           "Type of the column: `bigint` stands for smallint, integer and bigint, `varchar` for "
           "text and varchar. `vector` is not acted on yet; statements on such tables are "
           "refused."),
    choice("hasher", "postgres|sha1", "postgres",
           "Function for placement by hash: that of PostgreSQL's hash partitions, or SHA-1."),
    flag("primary", "false", "Marks the table other tables follow.").later(),
    setting{.name = "mapping", .type = value_type::tables,
            .help = "Placement by list or range: `[[sharded_tables.mapping]]`.",
            .nested = &mapping_section},
    text("lookup_query", "", "Query that finds the key or shard of a value.").later(),
    choice("lookup_result", "value|shard", "value", "What that query answers.").later(),
    of_type("centroids", value_type::vectors, "Centres for placement of vectors.").later(),
    text("centroids_path", "", "JSON file with the centres.").later(),
    count("centroid_probes", "0", 0, largest, "How many near centres are asked.").later(),
});

constexpr auto sharded_mappings = std::to_array<setting>({
    text("database", "", "Database the table belongs to.").must(),
    text("schema", "", "Its schema."),
    text("table", "", "Its name."),
    text("column", "", "The sharding column.").must(),
    choice("kind", "list|range|default", "", "How values are chosen.").must(),
    of_type("values", value_type::scalars, "Values that belong to the shard."),
    of_type("start", value_type::scalar, "First value of a range."),
    of_type("end", value_type::scalar, "First value after a range."),
    setting{.name = "shard", .type = value_type::integer, .help = "The shard.", .max = most_shards,
            .required = true},
});

constexpr auto sharded_schemas = std::to_array<setting>({
    text("database", "", "Database the schema belongs to.").must().later(),
    text("name", "", "Name of the schema; none: all that are not named.").later(),
    count("shard", "0", 0, most_shards, "Shard of its tables.").later(),
    flag("all", "false", "Its tables are on every shard.").later(),
});

constexpr auto omnisharded_tables = std::to_array<setting>({
    text("database", "", "Database the tables belong to.").must(),
    setting{.name = "tables", .type = value_type::strings,
            .help = "Their names. Tables that are not listed as sharded count as omnisharded "
                    "anyway.",
            .required = true},
    flag("sticky", "false", "Reads go to one shard for a client's life.").later(),
});

constexpr auto control = std::to_array<setting>({
    text("endpoint", "", "Address of the control plane.").later(),
    text("token", "", "Its token.").later().hidden(),
    duration("metrics_interval", "1000", "Pause between reports of series.").later(),
    duration("stats_interval", "5000", "Pause between reports of statistics.").later(),
    duration("active_queries_interval", "5000", "Pause between reports of statements.").later(),
    duration("request_timeout", "1000", "Bound on one request.").later(),
});
constexpr auto autodiscovery = std::to_array<setting>({
    flag("enabled", "false", "Find hosts of an Aurora cluster.").later(),
    duration("check_interval", "", "Pause between two looks.").later(),
    flag("replicas_only", "", "Find replicas only.").later(),
});
constexpr auto enabled_only = std::to_array<setting>({
    flag("enabled", "false", "Switch it on.").later(),
});
constexpr auto qos = std::to_array<setting>({
    flag("enabled", "false", "Switch it on.").later(),
    count("max_entries", "", 0, largest, "Units remembered.").later(),
});

constexpr auto pgsled = std::to_array<setting>({
    choice("dispatch", "cached|always", "cached",
           "`cached`: plans are kept where statements arrive. `always`: the router is asked about "
           "every statement, for comparison in tests."),
    choice("lane", "auto|socket|pumped|relay", "auto",
           "How server connections reach a frontend; anything but `auto` forces one lane."),
    choice("cross_shard_writes", "atomic|best_effort", "atomic",
           "How a transaction that has written on several shards commits: `atomic` as "
           "`two_phase_commit` says; `best_effort`: on one shard after the other, so that a "
           "failure between two of them leaves some committed and some not."),
    text("unix_socket_dir", "",
         "Directory of a Unix socket for clients; none: TCP only. One frontend of a machine has "
         "it, the next takes it over."),
    count("max_client_conn", "0", 0, 10'000'000,
          "Clients a frontend process accepts (53300); 0: no limit."),
    count("plan_cache_bytes", "16777216", 65536, 1LL << 40, "Plan cache of a frontend worker."),
    count("statement_cache_bytes", "67108864", 65536, 1LL << 40,
          "Texts of prepared statements a frontend worker keeps."),
    // What travels with a lease must fit into one message, with the session's settings.
    count("prepared_statements_per_connection", "1000", 1, 2000,
          "Prepared statements of the extended protocol on one server connection, except in "
          "session pooling; those unused for longest are closed for others."),
    count("busy_poll", "100", 0, 1000,
          "Microseconds for which a frontend worker or pooler looks for the next message before it "
          "sleeps, where messages come that fast and the processor is idle (a worker only with one "
          "server connection at the most in use): queries are answered sooner, for more CPU time. "
          "0: they sleep at once."),
    count("recall_deadline", "750", 10, 600'000,
          "Milliseconds a frontend has to give a recalled connection back before it is taken."),
    count("resharding_copy_rate", "0", 0, largest,
          "Bytes a second that a move copies from all shards together; 0: as fast as it can."),
    count("resharding_slot_limit", "68719476736", 1 << 20, largest,
          "Bytes of log that a move's slot may hold back on a server; then the move is undone "
          "rather than filling its disk."),
});

constexpr auto resharding = std::to_array<setting>({
    flag("automatic", "false",
         "A shard that is in the file and owns no rows yet gets its part of them by itself, as by "
         "`pgsled reshard add-shard`. One that `remove-shard` has emptied does not."),
    of_type("placed_by_hand", value_type::strings,
            "Placements that differ from the ones in use, as RELOAD names them when it refuses: "
            "rows are where the file says, or there are none."),
});

constexpr auto users = std::to_array<setting>({
    text("name", "", "Name clients log in with.").must(),
    text("database", "", "Database the user exists in."),
    of_type("databases", value_type::strings, "More of them."),
    flag("all_databases", "false",
         "The user exists in every database; where another entry names one, that one counts."),
    text("password", "", "Password of the client, and for the server unless given there.").hidden(),
    setting{.name = "passwords", .type = value_type::strings,
            .help = "More passwords that are accepted, for a change without a gap.",
            .secret = true},
    text("password_hash", "",
         "SCRAM verifier instead of a password, as `pgsled hash-password` prints it.")
        .hidden(),
    text("identity", "", "Name in the client's certificate.").later(),
    flag("tls_client_certificate_required", "", "The user needs a certificate.").later(),
    text("server_user", "", "User for the server; none: `name`."),
    text("server_password", "", "Password for the server; none: `password`.").hidden(),
    choice("server_auth", "password|rds_iam|azure_workload_identity|vault_dynamic|vault_static",
           "password",
           "Where the password for the server comes from. Only `password` is acted on."),
    text("server_iam_region", "", "Region for `rds_iam`.").later(),
    text("server_vault_path", "", "Path for the Vault kinds.").later(),
    text("vault_path", "", "Older spelling of it.").later(),
    count("vault_refresh_percent", "80", 0, 255, "Part of a lease after which it is renewed.")
        .later(),
    count("pool_size", "", 1, most_connections, "Overrides the database's.").also("max_pool_size"),
    count("pool_size_primary", "", 1, most_connections, "The same, for primaries only."),
    count("pool_size_replica", "", 1, most_connections, "The same, for replicas only.").later(),
    count("min_pool_size", "", 0, most_connections, "Overrides the database's."),
    count("min_pool_size_primary", "", 0, most_connections, "The same, for primaries only."),
    count("min_pool_size_replica", "", 0, most_connections, "The same, for replicas only.")
        .later(),
    choice("pooler_mode", modes, "", "Overrides the database's."),
    duration("statement_timeout", "", "`statement_timeout` of server connections.")
        .up_to(largest_int),
    duration("lock_timeout", "", "`lock_timeout` of server connections.").up_to(largest_int),
    duration("idle_timeout", "", "Overrides the database's."),
    duration("idle_timeout_primary", "", "The same, for primaries only."),
    duration("idle_timeout_replica", "", "The same, for replicas only.").later(),
    duration("server_lifetime", "", "Overrides the database's."),
    duration("server_lifetime_jitter", "", "Overrides the database's."),
    flag("read_only", "", "Server connections begin with `default_transaction_read_only = on`."),
    flag("cross_shard_disabled", "", "Overrides the general setting.").later(),
    flag("two_phase_commit", "", "Overrides the general setting."),
    flag("two_phase_commit_auto", "", "Overrides the general setting."),
    flag("replication_mode", "false", "Server connections take replication commands.").later(),
    text("replication_sharding", "", "Database whose sharding such streams are cut by.").later(),
    flag("schema_admin", "false", "The user whose connections read and change definitions."),
});

constexpr section one(std::string_view name, std::span<const setting> settings,
                      std::string_view help, bool acted_on = true) {
  return {.name = name, .acted_on = acted_on, .help = help, .settings = settings};
}
constexpr section many(std::string_view name, std::span<const setting> settings,
                       std::string_view help, bool acted_on = true) {
  return {.name = name, .repeated = true, .acted_on = acted_on, .help = help, .settings = settings};
}
constexpr section enterprise(std::string_view name, std::span<const setting> settings) {
  return {.name = name, .acted_on = false, .open = true,
          .help = "Of PgDog's Enterprise Edition.", .settings = settings};
}

}  // namespace

std::span<const section> pgdog_sections() {
  static const auto sections = std::to_array<section>({
      one("general", general_settings(), "The pooler itself, and defaults of all pools."),
      one("pgsled", pgsled, "What PgDog has no key for. PgDog refuses this section."),
      one("resharding", resharding,
          "Moving rows between shards. PgDog refuses this section, too."),
      many("databases", databases, "One entry for each host of each database."),
      many("sharded_tables", sharded_tables, "Tables whose rows are spread over the shards."),
      many("omnisharded_tables", omnisharded_tables, "Tables with the same rows on every shard."),
      one("admin", admin, "The virtual admin database; `[admin]` in users.toml replaces it."),
      one("tcp", tcp, "TCP options."),
      many("sharded_schemas", sharded_schemas, "Schemas that live on one shard.", false),
      many("sharded_mappings", sharded_mappings,
           "Older form of `[[sharded_tables.mapping]]`, for the tables that fit."),
      one("rewrite", rewrite, "Rewriting of statements.", false),
      one("memory", memory, "Buffers of PgDog.", false),
      one("multi_tenant", multi_tenant, "A filter every statement must have.", false),
      one("otel", otel, "Push of series by OpenTelemetry.", false),
      one("vault", vault, "Passwords for servers from HashiCorp Vault.", false),
      one("replication", replication, "Copying of definitions."),
      one("replica_lag", replica_lag, "Older form of `general.ban_replica_lag`.", false),
      many("query_parsers", query_parsers, "Parser of one database.", false),
      many("plugins", plugins, "Libraries PgDog loads.", false),
      many("mirroring", mirroring, "Statements repeated on another database.", false),
      enterprise("control", control),
      enterprise("autodiscovery", autodiscovery),
      enterprise("query_stats", enabled_only),
      enterprise("qos", qos),
  });
  return sections;
}

std::span<const section> users_sections() {
  static const auto sections = std::to_array<section>({
      many("users", users, "One entry for each user; several databases by `databases`."),
      one("admin", admin, "Replaces `[admin]` of pgdog.toml."),
  });
  return sections;
}

}  // namespace pgsled::config
