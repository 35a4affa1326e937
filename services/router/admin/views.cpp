#include "services/router/admin/views.hpp"

#include <algorithm>
#include <array>
#include <set>

namespace pgsled::router {

namespace {

using row_values = std::vector<std::optional<std::string>>;

// Which pool a row of an answer is about, by its id; pools that are no longer configured are
// left out of the joined views.
struct pool_sums {
  std::map<std::string, std::uint64_t, std::less<>> sums;
  std::uint64_t longest = 0;
  bool healthy = true, online = false;
};

std::map<std::uint32_t, pool_sums> by_pool(const std::vector<gathered_row>& rows) {
  std::map<std::uint32_t, pool_sums> pools;
  for (const gathered_row& row : rows) {
    pool_sums& to = pools[static_cast<std::uint32_t>(row.number("pool"))];
    for (const auto& [key, value] : row.values) to.sums[key] += row.number(key);
    to.longest = std::max(to.longest, row.number("maxwait"));
    if (row.values.contains("healthy") && row.text("healthy") != "t") to.healthy = false;
    if (row.values.contains("sv_total")) to.online = true;
  }
  return pools;
}

std::uint64_t sum_of(const pool_sums& from, std::string_view key) {
  const auto found = from.sums.find(key);
  return found == from.sums.end() ? 0 : found->second;
}

void pool_columns(admin_table& to) {
  to.column("database");
  to.column("user");
  to.column("addr");
  to.column("port", column_type::number);
  to.column("shard", column_type::number);
  to.column("role");
}
void pool_values(row_values& to, const snapshot::server_pool& pool) {
  to.insert(to.end(), {pool.database, pool.user, pool.host, std::to_string(pool.port),
                       std::to_string(pool.shard), pool.role});
}

std::string flag(bool value) { return value ? "t" : "f"; }

// Everything of `names` as the row has it.
void copy_values(row_values& to, const gathered_row& from, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = from.values.find(name);
    if (found == from.values.end()) {
      to.emplace_back(std::nullopt);
    } else {
      to.emplace_back(found->second);
    }
  }
}

column_type type_of(const std::string& name) {
  static const std::set<std::string, std::less<>> texts{
      "user", "database", "addr", "state", "connect_time", "last_request", "application_name",
      "holder", "lane", "request_time", "pooler", "frontend"};
  static const std::set<std::string, std::less<>> flags{"locked", "tls"};
  if (texts.contains(name)) return column_type::text;
  return flags.contains(name) ? column_type::boolean : column_type::number;
}

}  // namespace

admin_table show_version() {
  admin_table to;
  to.column("version");
  to.rows.push_back({"pgsled " PGSLED_VERSION});
  return to;
}

admin_table show_help() {
  admin_table to;
  to.column("command");
  to.column("description");
  const auto line = [&](const char* command, const char* text) {
    to.rows.push_back({command, text});
  };
  line("SHOW CLIENTS [column, ...]", "clients of all frontends; times in microseconds");
  line("SHOW SERVERS [column, ...]", "server connections of all poolers");
  line("SHOW POOLS [column, ...]", "pools, joined over frontends and poolers");
  line("SHOW STATS [column, ...]", "counters a pool since the processes began; microseconds");
  line("SHOW LISTS", "how many of what");
  line("SHOW DATABASES", "databases, shards and the state of their maps");
  line("SHOW CONFIG", "every setting, its value, and whether this version acts on it");
  line("SHOW STATUS", "the processes of the suite");
  line("SHOW TRANSACTIONS", "prepared on shards by commits over several of them; age in seconds");
  line("SHOW TASKS", "moves of rows between shards, of all replicators");
  line("SHOW REPLICATION_SLOTS", "slots of moves that are under way, and how far they are");
  line("RESHARD ADD SHARD database [shard]", "give a joining shard its part of the rows");
  line("RESHARD REMOVE SHARD database shard", "spread all rows of a shard over the others");
  line("RESHARD REBALANCE database", "even out what the shards own");
  line("RESHARD source destination publication [slot]", "move all of a database to other servers");
  line("COPY_DATA source destination publication [slot]", "the same, and wait for CUTOVER");
  line("SCHEMA_SYNC pre source destination publication [slot]", "only its definitions");
  line("SCHEMA_SYNC post | cutover source destination publication [slot]",
       "the task that does it: the move itself");
  line("REPLICATE source destination publication [slot]", "the task that does it: the move itself");
  line("CUTOVER [id]", "change sides now; on a move that has done so, back again");
  line("STOP_TASK id", "undo a move that has not switched over yet; finish one that has");
  line("SHOW VERSION", "version");
  line("RELOAD", "read both files again; returns when every process has acknowledged");
  line("SHUTDOWN", "drain and end all processes");
  return to;
}

admin_table show_transactions(const std::vector<open_transaction>& open) {
  admin_table to;
  for (const char* name : {"database", "user", "transaction_name", "transaction_state"}) {
    to.column(name);
  }
  to.column("age", column_type::number);
  to.column("coordinator", column_type::number);
  for (const char* name : {"participants", "gid", "reason"}) to.column(name);
  for (const open_transaction& one : open) {
    to.rows.push_back({one.database, one.owner, one.key, one.state, std::to_string(one.age / 1000),
                       std::to_string(one.coordinator),
                       fmt::format("{}", fmt::join(one.participants, ",")),
                       fmt::format("{}", fmt::join(one.gids, ",")), one.reason});
  }
  return to;
}

admin_table show_tasks(const std::vector<gathered_row>& rows) {
  static const std::vector<std::string> names{"id", "scope", "type", "status", "inner_status",
                                              "started_at", "updated_at", "elapsed", "elapsed_ms"};
  admin_table to;
  for (const std::string& name : names) {
    to.column(name, name == "elapsed_ms" ? column_type::number : column_type::text);
  }
  for (const gathered_row& row : rows) copy_values(to.rows.emplace_back(), row, names);
  return to;
}

admin_table show_replication_slots(const std::vector<gathered_row>& rows) {
  static const std::vector<std::string> names{
      "host", "port", "database_name", "name", "lsn", "lag", "lag_bytes", "copy_data",
      "last_transaction", "last_transaction_ms"};
  admin_table to;
  for (const std::string& name : names) {
    to.column(name, name == "copy_data" ? column_type::boolean
                    : name == "port" || name == "lag_bytes" || name == "last_transaction_ms"
                        ? column_type::number
                        : column_type::text);
  }
  for (const gathered_row& row : rows) copy_values(to.rows.emplace_back(), row, names);
  return to;
}

admin_table show_config(const config::configuration& config) {
  admin_table to;
  to.column("name");
  to.column("value");
  to.column("acted_on", column_type::boolean);
  for (const config::setting_value& one : config.values) {
    to.rows.push_back({one.name, one.value, flag(one.acted_on)});
  }
  return to;
}

admin_table show_databases(const control& truth) {
  admin_table to;
  to.column("name");
  to.column("shards", column_type::number);
  to.column("sharded", column_type::boolean);
  to.column("buckets", column_type::number);
  to.column("state");
  for (const database_definition& one : truth.topology().databases) {
    const database_state* state = truth.state(one.name);
    const std::size_t buckets = state == nullptr ? 0 : state->bucket_map.size();
    std::string how = "ready";
    if (one.sharded && buckets == 0) {
      how = state == nullptr || state->refused.empty() ? "shard map not known" : state->refused;
    }
    to.rows.push_back({one.name, std::to_string(one.shards), flag(one.sharded),
                       std::to_string(buckets), how});
  }
  return to;
}

admin_table show_status(const control& truth, const router_facts& self) {
  admin_table to;
  to.column("service");
  to.column("instance");
  to.column("pid", column_type::number);
  to.column("version");
  to.column("epoch", column_type::number);
  to.column("http");
  to.column("state");
  to.rows.push_back({"router", self.instance, std::to_string(self.pid), PGSLED_VERSION,
                     std::to_string(truth.epoch()), self.http, self.state});
  for (const auto& [name, who] : truth.members().all()) {
    if (who.hello.service == "cli") continue;
    std::string state = "ready";
    if (who.draining) state = "draining";
    else if (self.now - who.last_heard > 1500) state = "silent";
    else if (who.acked_epoch == 0) state = "starting";
    else if (!who.up_to_date()) state = "behind";
    to.rows.push_back({who.hello.service, name, std::to_string(who.hello.pid), who.hello.version,
                       std::to_string(who.acked_epoch), who.hello.http, state});
  }
  return to;
}

admin_table show_clients(const std::vector<gathered_row>& rows) {
  static const std::vector<std::string> names{
      "id", "user", "database", "addr", "port", "state", "connect_time", "last_request", "queries",
      "transactions", "wait_time", "query_time", "transaction_time", "bytes_received",
      "bytes_sent", "errors", "application_name", "locked", "prepared_statements"};
  admin_table to;
  for (const std::string& name : names) to.column(name, type_of(name));
  to.column("frontend");
  for (const gathered_row& row : rows) {
    auto& values = to.rows.emplace_back();
    copy_values(values, row, names);
    values.emplace_back(row.instance);
  }
  return to;
}

admin_table show_servers(const control& truth, const std::vector<gathered_row>& rows) {
  static const std::vector<std::string> names{
      "state", "connect_time", "request_time", "remote_pid", "transactions",
      "prepared_statements", "healthchecks", "errors", "age", "holder", "lane", "tls"};
  admin_table to;
  to.column("pool_id", column_type::number);
  pool_columns(to);
  for (const std::string& name : names) to.column(name, type_of(name));
  to.column("pooler");
  for (const gathered_row& row : rows) {
    const auto* pool = truth.pool(static_cast<std::uint32_t>(row.number("pool")));
    auto& values = to.rows.emplace_back();
    values.emplace_back(row.text("pool"));
    if (pool != nullptr) {
      pool_values(values, *pool);
    } else {
      values.resize(values.size() + 6);   // on its way out after a reload
    }
    copy_values(values, row, names);
    values.emplace_back(row.instance);
  }
  return to;
}

admin_table show_pools(const control& truth, const std::vector<gathered_row>& rows) {
  admin_table to;
  to.column("id", column_type::number);
  pool_columns(to);
  for (const char* name : {"cl_waiting", "sv_idle", "sv_active", "sv_idle_xact", "sv_total",
                           "maxwait", "maxwait_us"}) {
    to.column(name, column_type::number);
  }
  to.column("pool_mode");
  for (const char* name : {"paused", "banned", "healthy"}) to.column(name, column_type::boolean);
  for (const char* name : {"errors", "force_closed"}) to.column(name, column_type::number);
  for (const char* name : {"online", "schema_admin"}) to.column(name, column_type::boolean);
  for (const char* name : {"sv_lent", "sv_connecting", "sv_orphans", "pool_size", "budget"}) {
    to.column(name, column_type::number);
  }
  const auto sums = by_pool(rows);
  for (const pool_definition& pool : truth.topology().pools) {
    const auto found = sums.find(pool.server.id);
    const pool_sums one = found == sums.end() ? pool_sums{} : found->second;
    const auto text = [&](std::string_view key) { return std::to_string(sum_of(one, key)); };
    // The clients that use a lease include those between two statements of a transaction.
    const std::uint64_t in_use = sum_of(one, "cl_active"), resting = sum_of(one, "sv_idle_xact");
    auto& values = to.rows.emplace_back();
    values.emplace_back(std::to_string(pool.server.id));
    pool_values(values, pool.server);
    const std::uint64_t idle = sum_of(one, "sv_idle") + sum_of(one, "lease_idle");
    values.insert(values.end(),
                  {text("cl_waiting"), std::to_string(idle),
                   std::to_string(in_use > resting ? in_use - resting : 0), std::to_string(resting),
                   text("sv_total"), std::to_string(one.longest / 1'000'000),
                   std::to_string(one.longest % 1'000'000), pool.pooler_mode, flag(false),
                   flag(false), flag(one.healthy), text("errors"), text("force_closed"),
                   flag(one.online), flag(pool.schema_admin), text("sv_lent"),
                   text("sv_connecting"), text("sv_orphans"), std::to_string(pool.server.budget),
                   text("budget")});
  }
  return to;
}

admin_table show_stats(const control& truth, const std::vector<gathered_row>& rows,
                       const stats_window& window) {
  static constexpr std::array<const char*, 20> counters{
      "xact_count", "query_count", "server_assignment_count", "received", "sent", "xact_time",
      "idle_xact_time", "query_time", "wait_time", "server_parse_count", "bind_count",
      "close_count", "errors", "cleaned", "rollbacks", "connect_time", "connect_count", "reads",
      "writes", "auth_attempts"};
  static constexpr std::array<std::pair<const char*, const char*>, 5> averages{{
      {"xact_time", "xact_count"}, {"idle_xact_time", "xact_count"}, {"query_time", "query_count"},
      {"wait_time", "server_assignment_count"}, {"connect_time", "connect_count"}}};
  admin_table to;
  pool_columns(to);
  for (const char* name : counters) to.column(std::string("total_") + name, column_type::number);
  for (const char* name : counters) to.column(std::string("avg_") + name, column_type::number);
  const auto sums = by_pool(rows);
  for (const pool_definition& pool : truth.topology().pools) {
    const auto found = sums.find(pool.server.id);
    const pool_sums one = found == sums.end() ? pool_sums{} : found->second;
    auto& values = to.rows.emplace_back();
    pool_values(values, pool.server);
    for (const char* name : counters) values.emplace_back(std::to_string(sum_of(one, name)));
    const auto id = pool.server.id;
    for (const std::string_view name : counters) {
      const auto of = std::find_if(averages.begin(), averages.end(),
                                   [&](const auto& each) { return each.first == name; });
      if (of == averages.end()) {
        values.emplace_back(std::to_string(window.rate(id, name)));
        continue;
      }
      const std::uint64_t count = window.grown(id, of->second);
      values.emplace_back(std::to_string(count == 0 ? 0 : window.grown(id, name) / count));
    }
  }
  return to;
}

admin_table show_lists(const control& truth, const std::vector<gathered_row>& rows) {
  std::map<std::string, std::uint64_t> sums;
  for (const gathered_row& row : rows) {
    for (const auto& [key, value] : row.values) sums[key] += row.number(key);
  }
  admin_table to;
  auto& values = to.rows.emplace_back();
  const auto add = [&](const char* name, std::uint64_t value) {
    to.column(name, column_type::number);
    values.emplace_back(std::to_string(value));
  };
  add("databases", truth.topology().databases.size());
  add("users", truth.configuration().users.size());
  add("pools", truth.topology().pools.size());
  add("used_clients", sums["used_clients"]);
  add("free_servers", sums["free_servers"]);
  add("used_servers", sums["used_servers"]);
  add("waiting_clients", sums["waiting_clients"]);
  add("locked_clients", sums["locked_clients"]);
  add("plans_cached", sums["plans_cached"]);
  add("plans_cold", sums["plans_cold"]);
  return to;
}

bool show_parameter(const std::string& name, admin_table& to) {
  static const std::map<std::string, const char*, std::less<>> known{
      {"server_version", "15.0"}, {"server_version_num", "150000"}, {"server_encoding", "UTF8"},
      {"client_encoding", "UTF8"}, {"standard_conforming_strings", "on"}, {"datestyle", "ISO, MDY"},
      {"timezone", "UTC"}, {"integer_datetimes", "on"}, {"intervalstyle", "postgres"},
      {"transaction_isolation", "read committed"},
      {"default_transaction_isolation", "read committed"},
      {"transaction", "read committed"}, {"transaction_read_only", "off"},
      {"default_transaction_read_only", "off"}, {"in_hot_standby", "off"}, {"search_path", ""},
      {"max_identifier_length", "63"}, {"application_name", ""}, {"extra_float_digits", "1"},
      {"statement_timeout", "0"}, {"lock_timeout", "0"}, {"jit", "off"}, {"is_superuser", "off"},
      {"session_authorization", ""}, {"work_mem", ""}, {"max_index_keys", "32"},
      {"bytea_output", "hex"}, {"ssl_renegotiation_limit", "0"}, {"wal_level", ""}};
  const auto found = known.find(name);
  if (found == known.end()) return false;
  to = admin_table();
  to.column(name);
  to.rows.push_back({found->second});
  return true;
}

}  // namespace pgsled::router
