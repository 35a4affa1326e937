#include "services/pooler/views.hpp"

#include <boost/json.hpp>
#include <ctime>

namespace pgsled::pooler {
namespace {

namespace json = boost::json;
constexpr std::size_t most_rows = 10'000;

std::string as_date(time_point when) {
  const auto ago = net::clock::now() - when;
  const auto wall = std::chrono::system_clock::now() -
                    std::chrono::duration_cast<std::chrono::system_clock::duration>(ago);
  const auto seconds = std::chrono::system_clock::to_time_t(wall);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[40];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts)};
}

const char* state_name(connection_phase phase) {
  using enum connection_phase;
  switch (phase) {
    case retrying:
    case connecting: return "connecting";
    case idle: return "idle";
    case lent: return "active";
    case checking:
    case cleaning: return "cleaning";
    case closing: return "closing";
  }
  return "";
}

json::object server_row(const lender::connection_view& c) {
  const auto age =
      std::chrono::duration_cast<std::chrono::seconds>(net::clock::now() - c.state.born);
  return {{"pool", c.pool->id},
          {"state", state_name(c.state.phase)},
          {"holder", c.holder},
          {"lane", c.lane},
          {"connect_time", as_date(c.state.born)},
          {"request_time", as_date(c.state.since)},
          {"remote_pid", c.pid},
          {"transactions", c.state.generation},
          {"prepared_statements", c.statements},
          {"healthchecks", c.state.checks},
          {"errors", 0},
          {"age", age.count()},
          {"tls", c.encrypted}};
}

json::object pool_row(const lender::pool_view& p) {
  using enum connection_phase;
  const auto& m = *p.machine;
  return {{"pool", p.pool->id},
          {"sv_idle", m.in_phase(idle) + m.in_phase(checking) + m.in_phase(cleaning)},
          {"sv_lent", m.in_phase(lent)},
          {"sv_connecting", m.in_phase(connecting) + m.in_phase(retrying)},
          {"sv_total", m.used() - m.orphans()},
          {"sv_orphans", m.orphans()},
          {"budget", m.limits().budget},
          {"errors", m.counters().connect_failures},
          {"healthy", m.healthy()},
          {"force_closed", m.counters().broken}};
}

json::object stats_row(const lender::pool_view& p) {
  const auto& c = p.machine->counters();
  return {{"pool", p.pool->id},
          {"connect_count", c.connects},
          {"connect_time", c.connect_us},
          {"auth_attempts", c.connects + c.connect_failures},
          {"cleaned", c.dirty},
          {"errors", c.connect_failures}};
}

json::object lists_row(const lender& from) {
  std::uint64_t free = 0, used = 0;
  for (const auto& p : from.pools()) {
    const auto lent = p.machine->in_phase(connection_phase::lent);
    used += lent;
    free += p.machine->used() - p.machine->orphans() - lent;
  }
  return {{"free_servers", free}, {"used_servers", used}};
}

}  // namespace

std::string view(const lender& from, const std::string& what) {
  json::object answer;
  json::array rows;
  const auto add = [&](json::object row) {
    if (rows.size() >= most_rows) {
      answer["truncated"] = true;
    } else {
      rows.push_back(std::move(row));
    }
  };
  if (what == "servers") {
    for (const auto& one : from.connections()) add(server_row(one));
  } else if (what == "pools") {
    for (const auto& one : from.pools()) add(pool_row(one));
  } else if (what == "stats") {
    for (const auto& one : from.pools()) add(stats_row(one));
  } else if (what == "lists") {
    add(lists_row(from));
  }
  answer["rows"] = std::move(rows);
  return json::serialize(answer);
}

}  // namespace pgsled::pooler
