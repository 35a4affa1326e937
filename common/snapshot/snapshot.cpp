#include "common/snapshot/snapshot.hpp"

#include <boost/describe/class.hpp>

#include "common/snapshot/fields.hpp"
#include "common/snapshot/move.hpp"

namespace pgsled::snapshot {

BOOST_DESCRIBE_STRUCT(hello, (), (service, instance, version, pid, boot, host, http, lease_path,
                                  relay, relay_key, databases, holder, budgets))
BOOST_DESCRIBE_STRUCT(user, (), (name, database, auth, verifiers, md5, pooler_mode, admin, commits,
                                 commits_statement,
                                 query_timeout, client_idle_timeout, idle_in_transaction_timeout))
BOOST_DESCRIBE_STRUCT(sharded_table, (), (schema, name, column, data_type))
BOOST_DESCRIBE_STRUCT(database, (),
                      (name, shards, sharded, admin, bucket_map, map_epoch, mappings, catalog,
                       dispatch, moving, fence, fenced, held, leaving, served, resharding_only))
BOOST_DESCRIBE_STRUCT(pool_target, (), (pooler, budget))
BOOST_DESCRIBE_STRUCT(pool, (), (id, user, database, shard, host, port, role, targets))
BOOST_DESCRIBE_STRUCT(pooler_ref, (), (instance, host, lease_path, relay, relay_key))
BOOST_DESCRIBE_STRUCT(replicator_ref, (), (instance, endpoint, key))
BOOST_DESCRIBE_STRUCT(frontend_settings, (),
                      (host, port, unix_socket_dir, workers, tls_certificate, tls_private_key,
                       tls_modified, tls_client_required, max_client_conn, client_login_timeout,
                       checkout_timeout, shutdown_timeout, query_size_limit, lane, plan_cache_bytes,
                       statement_cache_bytes, prepared_statements_per_connection, busy_poll,
                       log_connections, log_disconnections, tcp_keepalive, tcp_time_s,
                       tcp_interval_s, tcp_retries, tcp_user_timeout_ms, log_level, log_format))
BOOST_DESCRIBE_STRUCT(frontend, (),
                      (epoch, version, holder, login_seed, settings, users, databases, pools,
                       poolers, replicators))
BOOST_DESCRIBE_STRUCT(server_pool, (),
                      (id, user, database, shard, host, port, server_database, server_user,
                       server_password, role, map_epoch, budget, min_size, startup, idle_timeout,
                       server_lifetime, server_lifetime_jitter))
BOOST_DESCRIBE_STRUCT(pooler_settings, (),
                      (tls_verify, tls_server_ca_certificate, tls_server_certificate,
                       tls_server_private_key, tls_modified, connect_timeout, connect_attempt_delay,
                       checkout_timeout, connect_attempts, healthcheck_interval,
                       healthcheck_timeout, rollback_timeout, recall_deadline, shutdown_timeout,
                       lane, busy_poll, tcp_keepalive, tcp_time_s, tcp_interval_s, tcp_retries,
                       tcp_user_timeout_ms, log_level, log_format))
BOOST_DESCRIBE_STRUCT(pooler, (), (epoch, version, settings, pools, relay_client_keys, fences,
                            holders))
BOOST_DESCRIBE_STRUCT(cluster_job, (), (database, other, job))
BOOST_DESCRIBE_STRUCT(replicator, (), (epoch, version, databases, moving, clusters, joining,
                                       log_level, log_format, shutdown_timeout, relay_client_keys))
BOOST_DESCRIBE_STRUCT(placed_table, (), (schema, name, column, data_type, hasher, mapping))
BOOST_DESCRIBE_STRUCT(in_effect, (), (over, drained))

template std::string to_json(const hello&);
template std::string to_json(const frontend&);
template std::string to_json(const pooler&);
template std::string to_json(const replicator&);
template std::string to_json(const in_effect&);
template std::string to_json(const placed_table&);
template result<placed_table> from_json(std::string_view);
template result<hello> from_json(std::string_view);
template result<frontend> from_json(std::string_view);
template result<pooler> from_json(std::string_view);
template result<replicator> from_json(std::string_view);
template result<in_effect> from_json(std::string_view);

}  // namespace pgsled::snapshot
