#include "services/router/metrics/pgdog_metrics.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

namespace pgsled::router {

namespace {

using enum metrics::type;
using enum pgdog_source;

constexpr double micro_to_milli = 1e-3, micro = 1e-6;

// Only what is measured: a series that is always 0 would be believed.
constexpr pgdog_series declared[] = {
    {{"clients", gauge, "Client connections."}, lists, "used_clients"},
    {{"clients_locked", gauge, "Clients that keep their server connection."}, lists,
     "locked_clients"},
    {{"query_cache_hits", counter, "Statements whose plan was known."}, lists, "plans_cached"},
    {{"query_cache_misses", counter, "Plans asked of the router."}, lists, "plans_cold"},
    {{"max_connections", gauge, "Most server connections of the pool."}, pools, "pool_size"},
    {{"cl_waiting", gauge, "Clients that wait for a connection of the pool."}, pools,
     "cl_waiting"},
    {{"sv_active", gauge, "Server connections that work for a client."}, pools, "sv_active"},
    {{"sv_idle", gauge, "Server connections that are free."}, pools, "sv_idle"},
    {{"sv_idle_xact", gauge, "Server connections idle in a transaction."}, pools, "sv_idle_xact"},
    {{"maxwait", gauge, "Longest present wait for a connection, seconds."}, pools, "maxwait"},
    {{"errors", counter, "Attempts to open a server connection that failed."}, pools, "errors"},
    {{"out_of_sync", counter, "Server connections that came back broken."}, pools,
     "force_closed"},
    {{"total_xact_count", counter, "Transactions ended."}, stats, "total_xact_count"},
    {{"total_query_count", counter, "Queries and executed portals."}, stats, "total_query_count"},
    {{"total_received", counter, "Bytes from clients."}, stats, "total_received"},
    {{"total_sent", counter, "Bytes for clients."}, stats, "total_sent"},
    {{"total_query_time", counter,
      "Time from requests to the ends of their answers, milliseconds."},
     stats, "total_query_time", micro_to_milli},
    {{"total_server_errors", counter, "Errors of servers, failed connects included."}, stats,
     "total_errors"},
    {{"total_cleaned", counter, "Connections cleaned with DISCARD ALL."}, stats, "total_cleaned"},
    {{"total_connect_time", counter, "Time to open server connections, milliseconds."}, stats,
     "total_connect_time", micro_to_milli},
    {{"total_connect_count", counter, "Server connections opened."}, stats, "total_connect_count"},
    {{"total_auth_attempts", counter, "Log-ins tried at servers."}, stats, "total_auth_attempts"},
};

std::size_t column_of(const admin_table& in, std::string_view name) {
  const auto at = std::find_if(in.columns.begin(), in.columns.end(),
                               [&](const auto& one) { return one.first == name; });
  return static_cast<std::size_t>(at - in.columns.begin());
}

std::string_view value_of(const std::vector<std::optional<std::string>>& row, std::size_t column) {
  return column < row.size() && row[column] ? std::string_view(*row[column]) : std::string_view();
}

double number_of(const std::vector<std::optional<std::string>>& row, std::size_t column) {
  const auto text = value_of(row, column);
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

void add_label(std::string& to, std::string_view name, std::string_view value) {
  to.append(to.empty() ? "{" : ",").append(name).append("=\"");
  for (const char c : value) {
    if (c == '\n') to += "\\n";
    else if (c == '"' || c == '\\') (to += '\\') += c;
    else to += c;
  }
  to += '"';
}

// The labels of each row of a table, once for all families.
std::vector<std::string> labels_of(const admin_table& table) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> names{{
      {"user", "user"}, {"database", "database"}, {"host", "addr"}, {"port", "port"},
      {"shard", "shard"}, {"role", "role"}}};
  std::vector<std::string> all;
  for (const auto& row : table.rows) {
    auto& one = all.emplace_back();
    for (const auto& [label, column] : names) {
      const auto at = column_of(table, column);
      if (at < table.columns.size()) add_label(one, label, value_of(row, at));
    }
    if (!one.empty()) one += '}';
  }
  return all;
}

}  // namespace

std::span<const pgdog_series> declared_pgdog_metrics() { return declared; }

std::string pgdog_metrics(const pgdog_tables& tables, std::string prefix, bool openmetrics,
                          std::size_t limit) {
  if (!prefix.empty() && prefix.back() != '_') prefix += '_';
  const std::array<const admin_table*, 3> sources{&tables.lists, &tables.pools, &tables.stats};
  std::array<std::vector<std::string>, 3> labels;
  for (std::size_t i = 0; i < sources.size(); ++i) labels[i] = labels_of(*sources[i]);
  std::string to;
  for (const auto& one : declared) {
    const auto source = static_cast<std::size_t>(one.from);
    const admin_table& table = *sources[source];
    const auto column = column_of(table, one.column);
    const auto fraction = one.column == "maxwait" ? column_of(table, "maxwait_us") : column;
    if (column >= table.columns.size()) continue;
    std::string family;
    const char* type = one.what.type == gauge ? "gauge" : openmetrics ? "unknown" : "counter";
    fmt::format_to(std::back_inserter(family), "# HELP {}{} {}\n# TYPE {}{} {}\n", prefix,
                   one.what.name, one.what.help, prefix, one.what.name, type);
    for (std::size_t row = 0; row < table.rows.size(); ++row) {
      double value = number_of(table.rows[row], column) * one.scale;
      if (fraction != column) value += number_of(table.rows[row], fraction) * micro;
      fmt::format_to(std::back_inserter(family), "{}{}{} {}\n", prefix, one.what.name,
                     labels[source][row], value);
    }
    if (to.size() + family.size() > limit) break;
    to += family;
  }
  return to;
}

}  // namespace pgsled::router
