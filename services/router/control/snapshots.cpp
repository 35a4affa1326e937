#include "services/router/control/snapshots.hpp"

#include <algorithm>
#include <set>

namespace pgsled::router {

namespace {

int whole_seconds(int milliseconds) { return (milliseconds + 999) / 1000; }

// Sums of times must not overflow: who waits for ever waits ten years.
std::int64_t bound_of(std::int64_t milliseconds) {
  return milliseconds == config::never ? 315'360'000'000 : milliseconds;
}

template <class Settings>
void common_settings(const config::configuration& config, Settings& to) {
  to.checkout_timeout = bound_of(config.general.checkout_timeout);
  to.shutdown_timeout = bound_of(config.general.shutdown_timeout);
  to.lane = config.pgsled.lane;
  to.tcp_keepalive = config.tcp.keepalive;
  to.tcp_time_s = whole_seconds(config.tcp.time_ms);
  to.tcp_interval_s = whole_seconds(config.tcp.interval_ms);
  to.tcp_retries = config.tcp.retries;
  to.tcp_user_timeout_ms = config.tcp.user_timeout_ms;
  to.busy_poll = config.pgsled.busy_poll;
  to.log_level = config.general.log_level;
  to.log_format = config.general.log_format;
}

snapshot::frontend_settings frontend_settings(const config::configuration& config) {
  const config::general& general = config.general;
  snapshot::frontend_settings to;
  common_settings(config, to);
  to.host = general.host;
  to.port = general.port;
  to.unix_socket_dir = config.pgsled.unix_socket_dir;
  to.workers = general.workers;
  to.tls_certificate = general.tls_certificate;
  to.tls_private_key = general.tls_private_key;
  to.tls_modified = general.tls_modified;
  to.tls_client_required = general.tls_client_required;
  to.max_client_conn = config.pgsled.max_client_conn;
  to.client_login_timeout = general.client_login_timeout;
  to.query_size_limit = general.query_size_limit;
  to.plan_cache_bytes = config.pgsled.plan_cache_bytes;
  to.statement_cache_bytes = config.pgsled.statement_cache_bytes;
  to.prepared_statements_per_connection = config.pgsled.prepared_statements_per_connection;
  to.log_connections = general.log_connections;
  to.log_disconnections = general.log_disconnections;
  return to;
}

snapshot::pooler_settings pooler_settings(const config::configuration& config) {
  const config::general& general = config.general;
  snapshot::pooler_settings to;
  common_settings(config, to);
  to.tls_verify = general.tls_verify;
  to.tls_server_ca_certificate = general.tls_server_ca_certificate;
  to.tls_server_certificate = general.tls_server_certificate;
  to.tls_server_private_key = general.tls_server_private_key;
  to.tls_modified = general.tls_modified;
  to.connect_timeout = bound_of(general.connect_timeout);
  to.connect_attempt_delay = general.connect_attempt_delay;
  to.connect_attempts = general.connect_attempts;
  to.healthcheck_interval = general.healthcheck_interval;
  to.healthcheck_timeout = bound_of(general.healthcheck_timeout);
  to.rollback_timeout = bound_of(general.rollback_timeout);
  to.recall_deadline = config.pgsled.recall_deadline;
  return to;
}

snapshot::pool frontend_pool(const snapshot::server_pool& from, const shares& given) {
  snapshot::pool to;
  to.id = from.id;
  to.user = from.user;
  to.database = from.database;
  to.shard = from.shard;
  to.host = from.host;
  to.port = from.port;
  to.role = from.role;
  const auto of_pool = given.find(from.id);
  if (of_pool == given.end()) return to;
  for (const auto& [pooler, share] : of_pool->second) {
    if (share.budget > 0) to.targets.push_back({pooler, share.budget});
  }
  return to;
}

std::vector<std::string> keys_of_frontends(const membership& members,
                                           std::vector<std::string> keys) {
  for (const auto& [name, who] : members.all()) {
    if (who.hello.service == "frontend" && !who.hello.relay_key.empty()) {
      keys.push_back(who.hello.relay_key);
    }
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

// Why no transaction of a database may begin.
std::string held(const std::string& name, const database_state& state) {
  if (!state.names_refused.empty()) return state.names_refused;
  if (state.names_unknown) {
    return "which servers are database \"" + name + "\" is not known: after a move to another "
           "cluster one of them has to be asked that is not reached";
  }
  if (state.whole) return "database \"" + name + "\" is being handed over to other servers";
  return {};
}

}  // namespace

bool serves(const member& pooler, const std::string& database) {
  const auto& only = pooler.hello.databases;
  return only.empty() || std::find(only.begin(), only.end(), database) != only.end();
}

std::vector<pool_size> wanted_shares(const topology& made, const membership& members) {
  std::vector<pool_size> wanted;
  wanted.reserve(made.pools.size());
  for (const pool_definition& pool : made.pools) {
    if (pool.resharding_only) continue;   // no client uses it
    pool_size one;
    one.pool = pool.server.id;
    one.size = pool.server.budget;
    one.min_size = pool.server.min_size;
    for (const auto& [name, who] : members.all()) {
      if (who.hello.service == "pooler" && !who.draining && serves(who, pool.server.database)) {
        one.poolers.push_back(name);
      }
    }
    wanted.push_back(std::move(one));
  }
  return wanted;
}

snapshot::frontend frontend_snapshot(const config::configuration& config, const topology& made,
                                     const membership& members, const shares& given,
                                     const database_states& states) {
  snapshot::frontend to;
  to.version = PGSLED_VERSION;
  to.settings = frontend_settings(config);
  to.users = made.users;
  for (const database_definition& from : made.databases) {
    snapshot::database database;
    database.name = from.name;
    database.shards = from.shards;
    database.sharded = from.sharded;
    database.dispatch = config.pgsled.dispatch;
    database.resharding_only = from.resharding_only;
    const auto state = states.find(from.name);
    if (state != states.end()) {
      database.held = held(from.name, state->second);
      database.served = state->second.names_epoch;
      database.leaving = !state->second.other.empty();
      if (state->second.whole) database.fence = state->second.fence;
    }
    if (from.sharded && state != states.end()) {
      database.bucket_map = state->second.bucket_map;
      database.map_epoch = state->second.map_epoch;
      database.catalog = state->second.catalog;
      database.moving = !state->second.moving.empty() && state->second.other.empty();
      database.fence = state->second.fence;
      database.fenced = state->second.fenced;
    }
    for (const config::sharded_table& table : config.sharded_tables) {
      if (table.database != from.name || !table.acted_on || !table.mapping) continue;
      auto& all = database.mappings;
      const bool there = std::any_of(all.begin(), all.end(), [&](const placement::mapping& one) {
        return one.id == table.mapping->id;
      });
      if (!there) all.push_back(*table.mapping);
    }
    // Frontends plan nothing for a single shard. Until the map has confirmed that it is one they
    // are told of two, so that they ask, and hear the reason or wait.
    if (from.sharded && database.bucket_map.empty()) database.shards = std::max(from.shards, 2u);
    to.databases.push_back(std::move(database));
  }
  snapshot::database admin;
  admin.name = made.admin_database;
  admin.admin = true;
  to.databases.push_back(std::move(admin));
  for (const pool_definition& pool : made.pools) {
    if (!pool.resharding_only) to.pools.push_back(frontend_pool(pool.server, given));
  }
  for (const auto& [name, who] : members.all()) {
    if (who.hello.service == "replicator" && !who.draining && !who.hello.relay.empty()) {
      to.replicators.push_back({name, who.hello.relay, who.hello.relay_key});
    }
    // A draining one stays known: leases of it are still to be given back.
    if (who.hello.service != "pooler") continue;
    to.poolers.push_back({name, who.hello.host, who.hello.lease_path, who.hello.relay,
                          who.hello.relay_key});
  }
  return to;
}

snapshot::pooler pooler_snapshot(const config::configuration& config, const topology& made,
                                 const membership& members, const member& pooler,
                                 const shares& given, const database_states& states,
                                 const std::vector<std::string>& client_keys) {
  snapshot::pooler to;
  for (const auto& [name, state] : states) {
    if (!state.fence.empty()) to.fences.push_back(state.fence);
  }
  to.version = PGSLED_VERSION;
  to.settings = pooler_settings(config);
  for (const pool_definition& pool : made.pools) {
    if (pool.resharding_only || !serves(pooler, pool.server.database)) continue;
    snapshot::server_pool mine = pool.server;
    mine.budget = mine.min_size = 0;
    if (const auto state = states.find(mine.database); state != states.end()) {
      mine.map_epoch = state->second.map_epoch;
    }
    if (const auto of_pool = given.find(mine.id); of_pool != given.end()) {
      if (const auto share = of_pool->second.find(pooler.hello.instance);
          share != of_pool->second.end()) {
        mine.budget = share->second.budget;
        mine.min_size = share->second.min_size;
      }
    }
    to.pools.push_back(std::move(mine));
  }
  to.relay_client_keys = keys_of_frontends(members, client_keys);
  for (const auto& [name, who] : members.all()) {
    if (!to.fences.empty() && who.hello.service == "frontend") to.holders.push_back(name);
  }
  return to;
}

snapshot::move_where where_rows_are(const config::configuration& config, const topology& made,
                                    const std::string& database, const database_state& state) {
  snapshot::move_where to;
  for (const management::address& one : shard_addresses(made, database)) {
    to.shards.push_back({static_cast<std::uint32_t>(to.shards.size()), one.host, one.port,
                         one.database, one.user, one.password});
  }
  to.epoch = state.map_epoch;
  to.buckets = state.bucket_map;
  for (const config::sharded_table& table : config.sharded_tables) {
    if (table.database != database) continue;
    to.tables.push_back({table.schema, table.name, table.column, table.data_type,
                         std::string(placement::name_of(table.hasher)),
                         table.mapping.has_value(),
                         table.mapping ? std::vector{*table.mapping}
                                       : std::vector<placement::mapping>()});
  }
  to.tls = {config.general.tls_verify, config.general.tls_server_ca_certificate,
            config.general.tls_server_certificate, config.general.tls_server_private_key};
  to.moving = state.moving;
  to.manner = {config.general.resharding_parallel_copies,
               config.general.resharding_copy_format == "binary",
               config.pgsled.resharding_copy_rate, config.pgsled.resharding_slot_limit,
               config.general.pg_dump_path,
               config.general.cutover_traffic_stop_threshold,
               config.general.cutover_replication_lag_threshold,
               config.general.cutover_last_transaction_delay,
               config.general.cutover_timeout};
  return to;
}

snapshot::cluster_where where_clusters_are(const config::configuration& config,
                                           const topology& made, const std::string& database,
                                           const std::string& to, const database_states& states) {
  const auto side = [&](const std::string& name) {
    const auto state = states.find(name);
    auto where = where_rows_are(config, made, name,
                                state == states.end() ? database_state{} : state->second);
    // Of one that is not sharded; a map that is not known stays empty.
    if (where.buckets.empty() && where.shards.size() <= 1) where.buckets = {0};
    return where;
  };
  snapshot::cluster_where both{side(database), side(to), {}, 0};
  both.moving = both.from.moving;
  if (const auto state = states.find(database); state != states.end()) {
    both.epoch = state->second.names_epoch;
  }
  return both;
}

namespace {

// One is enough to begin with shards that are joining.
bool is_first(const membership& members, const member& replicator) {
  for (const auto& [name, who] : members.all()) {
    if (who.hello.service == "replicator" && !who.draining) {
      return name == replicator.hello.instance;
    }
  }
  return false;
}

bool has_joining(const topology& made, const std::string& database, const database_state& state) {
  const auto& map = state.bucket_map;
  if (map.empty() || !state.moving.empty()) return false;
  for (const database_definition& one : made.databases) {
    if (one.name != database) continue;
    return std::set<std::uint32_t>(map.begin(), map.end()).size() < one.shards;
  }
  return false;
}

}  // namespace

snapshot::replicator replicator_snapshot(const config::configuration& config, const topology& made,
                                         const membership& members, const member& replicator,
                                         std::uint64_t configured, const database_states& states,
                                         const std::vector<std::string>& client_keys) {
  snapshot::replicator to;
  to.shutdown_timeout = bound_of(config.general.shutdown_timeout);
  to.relay_client_keys = keys_of_frontends(members, client_keys);
  to.version = PGSLED_VERSION;
  to.log_level = config.general.log_level;
  to.log_format = config.general.log_format;
  std::set<std::string> names;
  for (const config::sharded_table& table : config.sharded_tables) {
    if (table.acted_on && !table.mapping) names.insert(table.database);
  }
  to.databases.assign(names.begin(), names.end());
  for (const auto& [name, state] : states) {
    if (!state.other.empty()) {
      if (state.leads) to.clusters.push_back({name, state.other, state.moving});
    } else if (!state.moving.empty()) {
      to.moving.emplace_back(name, state.moving);
    }
    if (!config.resharding.automatic || !names.contains(name)) continue;
    if (has_joining(made, name, state) && is_first(members, replicator)) {
      to.joining.emplace_back(name, configured);
    }
  }
  return to;
}

}  // namespace pgsled::router
