#include "services/frontend/worker/gather.hpp"

#include <boost/json.hpp>

#include <chrono>

#include "services/frontend/client/client.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace json = boost::json;

namespace {
constexpr std::size_t max_rows = 10'000;

std::string wall_clock(net::time_point at, net::time_point now) {
  const auto then = std::chrono::system_clock::now() -
                    std::chrono::duration_cast<std::chrono::system_clock::duration>(now - at);
  const std::time_t seconds = std::chrono::system_clock::to_time_t(then);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[40];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

const char* state_name(const client& c) {
  using state = client::state;
  const auto now = c.now_in();
  if (now == state::waiting || now == state::fenced) return "waiting";
  if (now == state::spreading || now == state::copying || now == state::asking ||
      now == state::planning) {
    return "active";
  }
  const auto* s = c.attached();
  if (s == nullptr) return c.in_transaction() ? "idle in transaction" : "idle";
  if (!s->ledger.empty()) return "active";
  if (s->ledger.status() == 'E') return "transaction error";
  return s->ledger.status() == 'T' ? "idle in transaction" : "idle";
}

json::object client_row(const worker& w, const client& c, net::time_point now) {
  json::object row;
  const auto address = c.address();
  const auto colon = address.rfind(':');
  row["id"] = w.snapshot().holder << 20 | c.slot();
  row["user"] = c.where()->user.name;
  row["database"] = c.where()->database.name;
  row["addr"] = address.substr(0, colon);
  row["port"] = colon == std::string::npos ? 0 : std::atoi(address.c_str() + colon + 1);
  row["state"] = state_name(c);
  row["connect_time"] = wall_clock(c.connected_at(), now);
  row["last_request"] = wall_clock(c.last_request(), now);
  row["queries"] = c.counts().queries;
  row["transactions"] = c.counts().transactions;
  row["bytes_received"] = c.counts().received;
  row["bytes_sent"] = c.counts().sent;
  row["errors"] = c.counts().errors;
  row["application_name"] = c.application_name();
  row["locked"] = c.pinned() || c.where()->mode == pool_mode::session;
  row["prepared_statements"] = c.prepared_count();
  return row;
}

}  // namespace

std::string answer_gather(const worker& w, std::string_view request_json) {
  boost::system::error_code failed;
  const auto request =
      json::parse(json::string_view(request_json.data(), request_json.size()), failed);
  std::string what;
  bool openmetrics = false;
  if (!failed && request.is_object()) {
    if (const auto* text = request.as_object().if_contains("what");
        text != nullptr && text->is_string()) {
      what = std::string(text->as_string());
    }
    const auto* flag = request.as_object().if_contains("openmetrics");
    openmetrics = flag != nullptr && flag->is_bool() && flag->get_bool();
  }
  auto& loop = const_cast<worker&>(w).loop();
  const auto now = loop.now();
  json::array rows;
  bool truncated = false;
  if (what == "clients") {
    for (const auto& [key, each] : w.clients()) {
      if (!each->where() || each->now_in() == client::state::login ||
          each->now_in() == client::state::closed)
        continue;
      if (rows.size() == max_rows) {
        truncated = true;
        break;
      }
      rows.push_back(client_row(w, *each, now));
    }
  } else if (what == "pools") {
    for (const auto& [id, pool] : w.pools()) {
      if (pool->waiting() == 0 && pool->leases() == 0) continue;
      const auto wait =
          std::chrono::duration_cast<std::chrono::microseconds>(pool->longest_wait(now));
      rows.push_back(json::object{{"pool", id},
                                  {"cl_waiting", pool->waiting()},
                                  {"cl_active", pool->leases() - pool->idle()},
                                  {"lease_idle", pool->idle()},
                                  {"sv_idle_xact", pool->idle_in_transaction()},
                                  {"maxwait", wait.count()}});
    }
  } else if (what == "stats") {
    for (const auto& [id, pool] : w.pools()) {
      const auto& s = pool->stats;
      rows.push_back(json::object{{"pool", id},
                                  {"xact_count", s.transactions},
                                  {"query_count", s.queries},
                                  {"server_assignment_count", s.assignments},
                                  {"received", s.received},
                                  {"sent", s.sent},
                                  {"wait_time", s.wait_us},
                                  {"query_time", s.query_us},
                                  {"errors", s.errors},
                                  {"server_parse_count", s.parses},
                                  {"bind_count", s.binds},
                                  {"close_count", s.closes}});
    }
  } else if (what == "lists") {
    std::size_t waiting = 0;
    for (const auto& [id, pool] : w.pools()) waiting += pool->waiting();
    const auto& counted = w.counters();
    rows.push_back(json::object{{"used_clients", w.clients().size()},
                                {"waiting_clients", waiting},
                                {"locked_clients", counted.pinned.get()},
                                {"plans_cached", counted.plans_cached.get()},
                                {"plans_cold", counted.plans_cold.get()}});
  } else if (what == "ready") {
    rows.push_back(json::object{{"missing", w.snapshot().poolers.empty() ? "no pooler" : ""}});
  } else if (what == "metrics") {
    auto& shared = const_cast<worker&>(w).shared();
    return json::serialize(json::object{
        {"text", w.number() == 0 && shared.metrics_text ? shared.metrics_text(openmetrics) : ""}});
  }
  json::object answer{{"rows", std::move(rows)}};
  if (truncated) answer["truncated"] = true;
  return json::serialize(answer);
}

}  // namespace pgsled::frontend
