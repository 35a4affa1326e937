#include <array>

#include "common/config/schema.hpp"

namespace pgsled::config {
namespace {

constexpr std::string_view recovery = "recover|rollback_only|drop";

constexpr auto settings = std::to_array<setting>({
    // Network and process
    text("host", "0.0.0.0", "Address on which clients are accepted. Read at start only."),
    port("port", "6432", "TCP port for clients. Read at start only."),
    count("workers", "", 0, 1024,
          "Threads of each frontend, each with an event loop of its own; 0 counts as 1, none: half "
          "as many as it has processors, but 2 where there are 2 (1 if `lane` is `relay`). Read at "
          "start only."),
    text("openmetrics_host", "0.0.0.0",
         "Address of the port with the series of all processes. Read at start only."),
    port("openmetrics_port", "",
         "HTTP port on which the router serves the series of all processes; none: only each "
         "process's own `--http` address. Read at start only."),
    text("openmetrics_namespace", "",
         "Put before the names that PgDog gives its series; pgsled's own stay as they are."),
    port("healthcheck_port", "",
         "HTTP port on which the router answers whether the whole suite is ready. Read at start "
         "only."),
    text("broadcast_address", "", "Multicast address on which PgDog processes find each other.")
        .later(),
    port("broadcast_port", "6433", "UDP port that goes with `broadcast_address`.").later(),
    duration("dns_ttl", "", "How long a resolved host name is believed.").later(),
    duration("shutdown_timeout", "60000",
             "How long a drain waits for clients to finish their transactions; 0: not at all. "
             "`pgsled up` waits 10 seconds at most."),
    duration("shutdown_termination_timeout", "",
             "Time after `shutdown_timeout` in which what still runs is cancelled.")
        .later(),
    // Pools
    count("default_pool_size", "10", 1, 100'000,
          "Server connections a pool (user, database, shard, host) may have, over all poolers "
          "together.")
        .also("max_pool_size"),
    count("min_pool_size", "1", 0, 100'000, "Server connections a pool keeps open."),
    choice("pooler_mode", "transaction|session|statement", "transaction",
           "For how long a client keeps a server connection."),
    duration("checkout_timeout", "5000",
             "How long a client waits for a server connection, and for a plan of the router.")
        .or_zero(),
    duration("connect_timeout", "5000", "Bound on opening one server connection, log-in included.")
        .or_zero(),
    count("connect_attempts", "1", 0, 1000,
          "Attempts to open a server connection before waiting clients get the error; 0 counts "
          "as 1."),
    duration("connect_attempt_delay", "0", "Pause between two attempts."),
    duration("idle_timeout", "60000",
             "Server connections unused for this long are closed, down to `min_pool_size`; 0: as "
             "soon as they are."),
    duration("server_lifetime", "86400000",
             "Server connections older than this are closed when they come back; 0: never."),
    duration("server_lifetime_jitter", "0",
             "`server_lifetime` of each connection is changed by up to this much, at random."),
    duration("rollback_timeout", "5000",
             "Bound on cleaning a server connection; one that takes longer is closed.")
        .or_zero(),
    choice("connection_recovery", recovery, "recover",
           "What becomes of a server connection whose client vanished.")
        .later(),
    choice("client_connection_recovery", recovery, "drop",
           "Whether a client outlives the failure of its pool.")
        .later(),
    // Clients
    duration("query_timeout", "never",
             "A statement that runs longer is cancelled and its client disconnected.")
        .or_zero(),
    duration("client_login_timeout", "60000", "A client must have logged in within this time.")
        .or_zero(),
    duration("client_idle_timeout", "never", "Clients that send nothing for this long are closed.")
        .or_zero(),
    duration("client_idle_in_transaction_timeout", "never",
             "Clients that keep a transaction open without a statement for this long are closed "
             "(25P03).")
        .or_zero(),
    limit("query_size_limit", "",
          "Bytes a Query or Parse message may have, header included (54000). Acted on with "
          "`query_size_limit_action = \"block\"`."),
    choice("query_size_limit_action", "warn|block", "warn",
           "What a larger message meets. `warn` is not acted on yet."),
    count("pub_sub_channel_size", "0", 0, largest,
          "Queue of each LISTEN channel; 0 switches LISTEN and NOTIFY across clients off.")
        .later(),
    // Health and lag
    duration("healthcheck_interval", "30000",
             "A connection unchecked for longer is checked before it is lent."),
    duration("healthcheck_timeout", "5000", "Bound on one check.").or_zero(),
    duration("idle_healthcheck_interval", "30000", "Pause between background checks; 0: none.")
        .later(),
    duration("idle_healthcheck_delay", "5000", "No background check before this after the start.")
        .later(),
    flag("require_healthcheck_on_discovery", "false",
         "A host found at run time serves only after a check that succeeded.")
        .later(),
    duration("ban_timeout", "300000", "How long a failing host is left out.").later(),
    duration("ban_replica_lag", "never", "Replicas further behind than this are left out.").later(),
    limit("ban_replica_lag_bytes", "never", "The same, counted in bytes of log.").later(),
    duration("lsn_check_delay", "never", "When watching of log positions begins; never: off.")
        .later(),
    duration("lsn_check_interval", "5000", "Pause between two looks at a log position.").later(),
    duration("lsn_check_timeout", "5000", "Bound on one look at a log position.").later(),
    // Balancing
    choice("load_balancing_strategy",
           "random|round_robin|least_active_connections|weighted_round_robin", "random",
           "How one of several replicas is chosen.")
        .later(),
    choice("read_write_split",
           "include_primary|exclude_primary|include_primary_if_replica_banned|prefer_primary",
           "include_primary", "Whether the primary serves reads too.")
        .later(),
    choice("read_write_strategy", "conservative|aggressive", "conservative",
           "Whether reads inside a transaction may go to a replica.")
        .later(),
    // Parser and routing
    choice("query_parser", "on|off|auto|session_control|session_control_and_locks", "auto",
           "When statements are parsed. pgsled parses where there is something to plan.")
        .later(),
    flag("query_parser_enabled", "false", "Older spelling of `query_parser`.").later(),
    choice("query_parser_engine", "pg_query_protobuf|pg_query_raw", "pg_query_protobuf",
           "Which interface of libpg_query PgDog uses.")
        .later(),
    count("query_cache_limit", "1000", 0, largest,
          "Statements in PgDog's cache; pgsled's is bounded by `pgsled.plan_cache_bytes`.")
        .later(),
    count("regex_parser_limit", "1000", 0, largest, "Bytes PgDog's quick first look reads.")
        .later(),
    flag("dry_run", "false", "Route statements of unsharded databases for the record only.")
        .later(),
    flag("expanded_explain", "false", "Add the route to the output of EXPLAIN.").later(),
    flag("cross_shard_disabled", "false", "Refuse statements that need several shards.").later(),
    choice("system_catalogs", "omnisharded_sticky|omnisharded|sharded", "omnisharded_sticky",
           "Where statements on system catalogs go. pgsled always does as the default says.")
        .later(),
    flag("omnisharded_sticky", "false",
         "Reads of tables that are on every shard go to one shard for a client's life.")
        .later(),
    flag("canonicalize_type_information", "false",
         "Show the type numbers of shard 0 whatever shard answers.")
        .later(),
    choice("load_schema", "on|off|auto", "auto", "Whether table definitions are read at start.")
        .later(),
    flag("reload_schema_on_ddl", "true", "Read table definitions again after a change of schema.")
        .later(),
    count("sharding_lookup_cache_size", "67108864", 0, largest,
          "Bytes of cached answers of look-up queries per database.")
        .later(),
    duration("sharding_lookup_timeout", "5000", "Bound on one look-up query.").later(),
    choice("unique_id_function", "standard|compact", "standard", "Layout of generated identifiers.")
        .later(),
    count("unique_id_min", "0", 0, largest, "Added to every generated identifier.").later(),
    // Prepared statements
    choice("prepared_statements", "extended|disabled|extended_anonymous|full", "extended",
           "Which prepared statements survive a change of server connection. pgsled always does "
           "as the default says.")
        .later(),
    limit("prepared_statements_limit", "never",
          "Prepared statements per server connection; pgsled has "
          "`pgsled.prepared_statements_per_connection`.")
        .later(),
    duration("prepared_statements_ttl", "", "Prepared statements are made anew after this time.")
        .later(),
    duration("prepared_statements_ttl_jitter", "30000", "Random change of that time.").later(),
    // Authentication and TLS
    choice("auth_type", "scram|md5|plain|trust", "scram", "How clients prove who they are."),
    choice("passthrough_auth",
           "disabled|enabled|enabled_plain|enabled_allow_change|enabled_plain_allow_change",
           "disabled", "Take a client's password to the server instead of checking it here.")
        .later(),
    text("tls_certificate", "", "Certificate (PEM file) shown to clients; goes with the key."),
    text("tls_private_key", "", "Key (PEM file) of `tls_certificate`."),
    flag("tls_client_required", "false", "Refuse clients that do not use TLS."),
    text("tls_client_ca_certificate", "", "CA file that certificates of clients must come from.")
        .later(),
    choice("tls_verify", "disabled|prefer|verify_ca|verify_full", "prefer",
           "TLS to servers: none, if offered, with a checked certificate, with a checked "
           "certificate and host name."),
    text("tls_server_ca_certificate", "",
         "CA file for certificates of servers; none: those of the system."),
    text("tls_server_certificate", "", "Certificate (PEM file) shown to servers."),
    text("tls_server_private_key", "", "Key (PEM file) of `tls_server_certificate`."),
    // Two-phase commit
    flag("two_phase_commit", "true",
         "Transactions that have written on several shards commit on all of them or on none; "
         "needs `max_prepared_transactions` > 0 on every server. `false`: such a COMMIT is "
         "refused, unless `pgsled.cross_shard_writes` allows it."),
    flag("two_phase_commit_auto", "",
         "The same for single statements for all shards outside a transaction; `false`: "
         "committed on one shard after the other. None: as `two_phase_commit`."),
    text("two_phase_commit_wal_dir", "", "Directory of PgDog's own log; pgsled needs none.")
        .later(),
    count("two_phase_commit_wal_segment_size", "16777216", 0, largest, "Bytes of a file of it.")
        .later(),
    duration("two_phase_commit_wal_fsync_interval", "0", "Longest wait to sync in groups.").later(),
    duration("two_phase_commit_wal_checkpoint_interval", "15000", "Pause between checkpoints.")
        .later(),
    // Mirroring and resharding
    count("mirror_queue", "128", 0, largest, "Transactions that may wait for a mirror.").later(),
    number("mirror_exposure", "1.0", 0, 1, "Share of transactions that is mirrored.").later(),
    choice("resharding_copy_format", "binary|text", "binary",
           "Format in which moving rows are copied; `binary` only for tables whose types read the "
           "same on every server."),
    count("resharding_parallel_copies", "2", 0, largest,
          "Parts of tables a move copies at once, and indexes it builds at once; at most 32."),
    count("resharding_copy_retry_max_attempts", "5", 0, largest, "Attempts to copy a table.")
        .later(),
    duration("resharding_copy_retry_min_delay", "1000", "First pause between them; it doubles.")
        .later(),
    count("resharding_replication_retry_max_attempts", "5", 0, largest,
          "Attempts to follow a stream; 0: without end.")
        .later(),
    duration("resharding_replication_retry_min_delay", "1000", "First pause; it doubles.").later(),
    limit("cutover_traffic_stop_threshold", "1000000", "Bytes of lag at which traffic is held."),
    limit("cutover_replication_lag_threshold", "0", "Bytes of lag at which sides are swapped."),
    duration("cutover_last_transaction_delay", "1000", "Quiet time before sides are swapped."),
    duration("cutover_timeout", "30000", "How long traffic may be held."),
    choice("cutover_timeout_action", "abort|cutover", "abort",
           "What happens after that: traffic goes on where it was. `cutover` would lose rows, and "
           "is taken for `abort`."),
    flag("cutover_save_config", "false", "Write the new configuration to disk.").later(),
    // Logs and statistics
    text("log_level", "info",
         "trace, debug, info, warn, error or off. Of a list for modules, such as "
         "`pgdog=debug,info`, only the part without a module is acted on."),
    choice("log_format", "text|json|json_flattened", "text", "Form of log lines."),
    flag("log_connections", "true", "Log clients that log in."),
    flag("log_disconnections", "true", "Log clients that leave."),
    duration("log_dedup_window", "0", "Time in which equal lines are counted together.").later(),
    count("log_dedup_threshold", "0", 0, largest, "Equal lines that are let through first.")
        .later(),
    duration("log_min_duration_parse", "", "Log statements whose parse takes longer.").later(),
    count("log_query_sample_length", "1000", 0, largest, "Characters of a statement in such logs.")
        .later(),
    text("query_log", "", "File to which every statement is written.").later(),
    flag("query_log_stdout", "false", "The same to standard output.").later(),
    duration("stats_period", "15000", "Window of the averages in SHOW STATS; 0: no averages."),
});

}  // namespace

std::span<const setting> general_settings() { return settings; }

}  // namespace pgsled::config
