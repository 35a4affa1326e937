#include "services/router/metrics/suite_http.hpp"

#include <future>

#include "common/metrics/metrics.hpp"
#include "services/router/admin/desk.hpp"
#include "services/router/admin/views.hpp"
#include "services/router/metrics/metrics_merge.hpp"
#include "services/router/metrics/pgdog_metrics.hpp"
#include "services/router/shards/service.hpp"

namespace pgsled::router {

namespace {

constexpr std::int64_t gather_wait = 500;
constexpr std::chrono::milliseconds http_wait{800};

const char* content_type(bool openmetrics) {
  return openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                     : "text/plain; version=0.0.4; charset=utf-8";
}

http::response unavailable(const std::string& why) {
  http::response no;
  no.status = 503;
  no.body = why + "\n";
  return no;
}

}  // namespace

suite_http::suite_http(net::reactor& loop, const control& truth, gatherer& questions,
                       std::string own_instance)
    : loop_(loop), truth_(truth), questions_(questions), instance_(std::move(own_instance)) {}
suite_http::~suite_http() = default;

std::string suite_http::start(const config::general& general) {
  if (general.openmetrics_port) {
    metrics_ = std::make_unique<http::server>();
    const auto bound = metrics_->start(
        general.openmetrics_host + ":" + std::to_string(*general.openmetrics_port),
        [this](const http::request& asked) {
          return collect(asked.accept.find("application/openmetrics-text") != std::string::npos);
        });
    if (!bound) return "openmetrics_port: " + bound.error().message;
  }
  if (general.healthcheck_port) {
    health_ = std::make_unique<http::server>();
    const auto bound =
        health_->start(general.host + ":" + std::to_string(*general.healthcheck_port),
                       [this](const http::request&) { return health(); });
    if (!bound) return "healthcheck_port: " + bound.error().message;
  }
  return {};
}

http::response suite_http::collect(bool openmetrics) {
  struct found {
    std::vector<process_metrics> processes;
    pgdog_tables tables;
    std::string prefix;
    int waits = 0;       // for answers of so many questions
  };
  // Shared: the answer may come after nobody waits for it any more.
  const auto promise = std::make_shared<std::promise<found>>();
  auto future = promise->get_future();
  loop_.post([this, promise, openmetrics] {
    const auto all = std::make_shared<found>();
    all->prefix = truth_.configuration().general.openmetrics_namespace;
    const auto answered = [promise, all] {
      if (--all->waits == 0) promise->set_value(std::move(*all));
    };
    all->waits = 4;
    const auto table = [&](const char* question, admin_table& to, auto made) {
      const auto whom = members_of(truth_, {"frontend", "pooler"});
      questions_.ask(whom, question, steady_ms() + gather_wait,
                     [this, all, answered, &to, made](gathered got) {
                       to = made(truth_, read_rows(got));
                       answered();
                     });
    };
    table(R"({"what":"lists"})", all->tables.lists, show_lists);
    table(R"({"what":"pools"})", all->tables.pools, show_pools);
    table(R"({"what":"stats"})", all->tables.stats, [](const auto& truth, const auto& rows) {
      return show_stats(truth, rows, {});   // averages are none of its series
    });
    const std::string question =
        openmetrics ? R"({"what":"metrics","openmetrics":true})" : R"({"what":"metrics"})";
    const auto whom = members_of(truth_, {"frontend", "pooler", "replicator"});
    questions_.ask(whom, question, steady_ms() + gather_wait, [this, all, answered](gathered got) {
      for (const auto& [name, json] : got.answers) {
        const auto who = truth_.members().all().find(name);
        if (who == truth_.members().all().end()) continue;
        const std::string& service = who->second.hello.service;
        all->processes.push_back({service, process_instance(service, name), read_text(json)});
      }
      answered();
    });
  });
  if (future.wait_for(http_wait) != std::future_status::ready) {
    return unavailable("no answer in time");
  }
  found all;
  try {
    all = future.get();
  } catch (const std::future_error&) {   // the router is ending
    return unavailable("the router is ending");
  }
  all.processes.insert(all.processes.begin(),
                       {"router", instance_, metrics::process_registry().expose({}, openmetrics)});
  http::response yes;
  yes.content_type = content_type(openmetrics);
  yes.body = merge_metrics(
      all.processes, pgdog_metrics(all.tables, all.prefix, openmetrics, max_metrics_bytes),
      openmetrics);
  return yes;
}

std::vector<std::string> suite_problems(const control& truth, gathered& got) {
  std::vector<std::string> problems;
  if (truth.members().count("frontend", false) == 0) problems.emplace_back("no frontend is here");
  if (truth.members().count("pooler", false) == 0) problems.emplace_back("no pooler is here");
  for (const gathered_row& row : read_rows(got)) {
    const std::string missing = row.text("missing");
    if (!missing.empty()) problems.push_back(row.instance + ": " + missing);
  }
  for (const std::string& name : got.missing) problems.push_back(name + ": no answer");
  for (const database_definition& one : truth.topology().databases) {
    const database_state* state = truth.state(one.name);
    if (one.sharded && (state == nullptr || state->bucket_map.empty())) {
      problems.push_back("the shard map of database \"" + one.name + "\" is not known");
    }
  }
  return problems;
}

http::response suite_http::health() {
  const auto promise = std::make_shared<std::promise<std::vector<std::string>>>();
  auto future = promise->get_future();
  loop_.post([this, promise] {
    std::vector<std::string> whom;
    for (const std::string& name : members_of(truth_, {"frontend", "pooler", "replicator"})) {
      if (!truth_.members().all().at(name).draining) whom.push_back(name);
    }
    questions_.ask(whom, R"({"what":"ready"})", steady_ms() + gather_wait,
                   [this, promise](gathered got) {
                     promise->set_value(suite_problems(truth_, got));
                   });
  });
  if (future.wait_for(http_wait) != std::future_status::ready) {
    return unavailable("no answer in time");
  }
  std::vector<std::string> problems;
  try {
    problems = future.get();
  } catch (const std::future_error&) {
    return unavailable("the router is ending");
  }
  if (problems.empty()) {
    http::response yes;
    yes.body = "up\n";
    return yes;
  }
  std::string text;
  for (const std::string& one : problems) text += one + "\n";
  return unavailable(text);
}

}  // namespace pgsled::router
