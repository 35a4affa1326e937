#include "services/router/control/topology.hpp"

#include <algorithm>
#include <set>

#include "common/auth/scram.hpp"
#include "services/router/control/membership.hpp"

namespace pgsled::router {

std::uint32_t pool_ids::id(const std::string& user, const std::string& database,
                           std::uint32_t shard, const config::database& host) {
  std::string key = user;
  key.append(1, '\0').append(database).append(1, '\0').append(std::to_string(shard));
  key.append(1, '\0').append(host.host).append(1, '\0').append(std::to_string(host.port));
  // Two clusters may live on one server.
  if (host.database_name != database) key.append(1, '\0').append(host.database_name);
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) return found->second;
  std::uint32_t number = stable_hash(key);
  while (number == 0 || by_id_.contains(number)) ++number;
  by_key_[key] = number;
  by_id_[number] = key;
  return number;
}

std::uint32_t shards_of(const config::configuration& config, const std::string& database) {
  std::uint32_t count = 0;
  for (const config::database& one : config.databases) {
    if (one.name == database) count = std::max(count, one.shard + 1);
  }
  return count;
}

const config::database* shard_host(const config::configuration& config, const std::string& database,
                                   std::uint32_t shard) {
  const config::database* second_best = nullptr;
  for (const config::database& one : config.databases) {
    if (one.name != database || one.shard != shard) continue;
    if (one.role == "primary") return &one;
    if (one.role != "replica" && second_best == nullptr) second_best = &one;
  }
  return second_best;
}

namespace {

std::set<std::string> database_names(const config::configuration& config) {
  std::set<std::string> names;
  for (const config::database& one : config.databases) names.insert(one.name);
  return names;
}

bool names_database(const config::user& user, const std::string& database) {
  return std::find(user.databases.begin(), user.databases.end(), database) != user.databases.end();
}

bool may_use(const config::user& user, const std::string& database) {
  return user.all_databases || names_database(user, database);
}

bool is_named(const config::configuration& config, const std::string& user,
              const std::string& database) {
  return std::any_of(config.users.begin(), config.users.end(), [&](const auto& one) {
    return one.name == user && names_database(one, database);
  });
}

template <class T>
T first_of(const std::optional<T>& first, const std::optional<T>& second, T otherwise) {
  if (first) return *first;
  return second ? *second : otherwise;
}

std::string mode_of(const config::configuration& config, const config::user& user,
                    const config::database* host) {
  return first_of(user.pooler_mode, host ? host->pooler_mode : std::nullopt,
                  config.general.pooler_mode);
}

pool_definition define(const config::configuration& config, const config::user& user,
                       const config::database& host, pool_ids& ids) {
  const config::general& general = config.general;
  pool_definition pool;
  snapshot::server_pool& server = pool.server;
  server.id = ids.id(user.name, host.name, host.shard, host);
  server.user = user.name;
  server.database = host.name;
  server.shard = host.shard;
  server.host = host.host;
  server.port = host.port;
  server.role = "primary";
  server.server_database = host.database_name.empty() ? host.name : host.database_name;
  server.server_user = first_of(host.user, user.server_user, user.name);
  server.server_password =
      first_of(host.password, user.server_password,
               user.passwords.empty() ? std::string() : user.passwords.front());
  server.budget = first_of(user.pool_size, host.pool_size, general.default_pool_size);
  server.min_size = first_of(user.min_pool_size, host.min_pool_size, general.min_pool_size);
  server.idle_timeout = first_of(user.idle_timeout, host.idle_timeout, general.idle_timeout);
  server.server_lifetime =
      first_of(user.server_lifetime, host.server_lifetime, general.server_lifetime);
  server.server_lifetime_jitter = first_of(user.server_lifetime_jitter, host.server_lifetime_jitter,
                                           general.server_lifetime_jitter);
  const auto parameter = [&](const char* name, const std::optional<std::int64_t>& first,
                             const std::optional<std::int64_t>& second) {
    const std::int64_t value = first_of(first, second, config::never);
    if (value != config::never) server.startup.emplace_back(name, std::to_string(value));
  };
  parameter("statement_timeout", user.statement_timeout, host.statement_timeout);
  parameter("lock_timeout", user.lock_timeout, host.lock_timeout);
  if (first_of(user.read_only, host.read_only, false)) {
    server.startup.emplace_back("default_transaction_read_only", "on");
  }
  pool.pooler_mode = mode_of(config, user, &host);
  pool.schema_admin = user.schema_admin;
  pool.resharding_only = host.resharding_only;
  return pool;
}

database_definition define(const config::configuration& config, const std::string& name) {
  database_definition database;
  database.name = name;
  database.shards = std::max(1u, shards_of(config, name));
  for (const config::database& one : config.databases) {
    if (one.name == name) database.resharding_only = one.resharding_only;
  }
  for (const config::sharded_table& table : config.sharded_tables) {
    if (table.database != name) continue;
    database.tables.push_back({table.schema, table.name, table.column, table.data_type});
  }
  database.sharded = database.shards > 1 || !database.tables.empty();
  return database;
}

snapshot::user define(const config::configuration& config, const config::user& from,
                      const std::string& database, verifier_book& book) {
  snapshot::user user;
  user.name = from.name;
  user.database = database;
  book.fill(user, config.general.auth_type, from.passwords, from.password_hash.value_or(""));
  user.pooler_mode = mode_of(config, from, shard_host(config, database, 0));
  const bool two_phases = from.two_phase_commit.value_or(config.general.two_phase_commit);
  const bool of_statements = from.two_phase_commit_auto.value_or(
      config.general.two_phase_commit_auto.value_or(two_phases));
  if (config.pgsled.cross_shard_writes == "best_effort") {
    user.commits = user.commits_statement = "one_by_one";
  } else {
    user.commits = two_phases ? "atomic" : "refused";
    user.commits_statement = of_statements ? "atomic" : "one_by_one";
  }
  user.query_timeout = config.general.query_timeout;
  user.client_idle_timeout = config.general.client_idle_timeout;
  user.idle_in_transaction_timeout = config.general.client_idle_in_transaction_timeout;
  return user;
}

snapshot::user define_admin(const config::configuration& config, verifier_book& book) {
  snapshot::user user;
  user.name = config.admin.user;
  user.database = config.admin.name;
  user.pooler_mode = "transaction";
  user.admin = true;
  if (config.admin.password.empty()) {
    user.auth = "scram";   // no password was set: locked out, whatever auth_type says
  } else {
    book.fill(user, config.general.auth_type, {config.admin.password}, {});
  }
  return user;
}

}  // namespace

topology make_topology(const config::configuration& config, pool_ids& ids, verifier_book& book) {
  topology made;
  made.admin_database = config.admin.name;
  const auto names = database_names(config);
  for (const std::string& name : names) made.databases.push_back(define(config, name));
  std::set<std::pair<std::string, std::string>> seen;
  for (const config::user& user : config.users) {
    for (const database_definition& database : made.databases) {
      if (!may_use(user, database.name)) continue;
      // An entry for all databases is for those that have none of their own.
      if (!names_database(user, database.name) && is_named(config, user.name, database.name)) continue;
      if (!seen.emplace(user.name, database.name).second) continue;
      made.users.push_back(define(config, user, database.name, book));
      for (std::uint32_t shard = 0; shard < database.shards; ++shard) {
        const config::database* host = shard_host(config, database.name, shard);
        if (host != nullptr) made.pools.push_back(define(config, user, *host, ids));
      }
    }
  }
  made.users.push_back(define_admin(config, book));
  book.sweep();
  return made;
}

std::vector<management::address> shard_addresses(const topology& from,
                                                 const std::string& database) {
  const auto known = std::find_if(from.databases.begin(), from.databases.end(),
                                  [&](const auto& one) { return one.name == database; });
  if (known == from.databases.end()) return {};
  std::vector<management::address> addresses(known->shards);
  std::vector<bool> found(known->shards, false), by_admin(known->shards, false);
  for (const pool_definition& pool : from.pools) {
    const snapshot::server_pool& server = pool.server;
    if (server.database != database || server.shard >= known->shards) continue;
    if (found[server.shard] && (by_admin[server.shard] || !pool.schema_admin)) continue;
    found[server.shard] = true;
    by_admin[server.shard] = pool.schema_admin;
    addresses[server.shard] = {server.host, server.port, server.server_database, server.server_user,
                               server.server_password};
  }
  if (std::find(found.begin(), found.end(), false) != found.end()) return {};
  return addresses;
}

}  // namespace pgsled::router
