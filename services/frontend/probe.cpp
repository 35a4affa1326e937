#include "services/frontend/probe.hpp"

namespace pgsled::frontend {

namespace {
using metrics::description;
using metrics::type;

struct declared {
  description what;
  metrics::cell probe::* cell;
};

constexpr declared cells[] = {
    {{"pgsled_clients", type::gauge, "Client connections."}, &probe::clients},
    {{"pgsled_clients_waiting", type::gauge, "Clients that wait for a server connection."},
     &probe::clients_waiting},
    {{"pgsled_clients_accepted_total", type::counter, "Client connections accepted."},
     &probe::clients_accepted},
    {{"pgsled_clients_refused_total", type::counter, "Clients refused because of max_client_conn."},
     &probe::clients_refused},
    {{"pgsled_logins_failed_total", type::counter, "Clients that did not get in."},
     &probe::logins_failed},
    {{"pgsled_queries_total", type::counter, "Queries and executed portals sent by clients."},
     &probe::queries},
    {{"pgsled_transactions_total", type::counter, "Transactions ended, implicit ones included."},
     &probe::transactions},
    {{"pgsled_client_received_bytes_total", type::counter, "Bytes read from clients."},
     &probe::bytes_from_clients},
    {{"pgsled_client_sent_bytes_total", type::counter, "Bytes for clients."},
     &probe::bytes_to_clients},
    {{"pgsled_leases", type::gauge, "Server connections held by this worker."}, &probe::leases},
    {{"pgsled_leases_idle", type::gauge, "Of these, held for no client."}, &probe::leases_idle},
    {{"pgsled_leases_granted_total", type::counter, "Server connections lent by poolers."},
     &probe::leases_granted},
    {{"pgsled_leases_broken_total", type::counter, "Server connections given back as unusable."},
     &probe::leases_broken},
    {{"pgsled_clients_pinned", type::gauge, "Clients that keep their server connection."},
     &probe::pinned},
    {{"pgsled_plans_cached_total", type::counter, "Statements whose plan was known."},
     &probe::plans_cached},
    {{"pgsled_plans_cold_total", type::counter, "Plans asked of the router."}, &probe::plans_cold},
    {{"pgsled_statements_refused_total", type::counter, "Statements refused by their plan."},
     &probe::plans_refused},
    {{"pgsled_fence_waits_total", type::counter,
      "Statements held back because their rows were changing their shard."},
     &probe::fence_waits},
    {{"pgsled_plan_cache_bytes", type::gauge, "Memory of the plan cache."},
     &probe::plan_cache_bytes},
    {{"pgsled_plan_cache_evictions_total", type::counter, "Plans dropped at plan_cache_bytes."},
     &probe::plan_cache_evictions},
    {{"pgsled_statement_cache_bytes", type::gauge, "Memory of the statement cache."},
     &probe::statement_cache_bytes},
    {{"pgsled_statement_cache_evictions_total", type::counter,
      "Statements dropped at statement_cache_bytes."},
     &probe::statement_cache_evictions},
    {{"pgsled_statements_prepared_total", type::counter,
      "Prepared on a server connection by pgsled."},
     &probe::statements_prepared},
    {{"pgsled_checkout_timeouts_total", type::counter,
      "Clients that waited longer than checkout_timeout."},
     &probe::checkout_timeouts},
    {{"pgsled_client_protocol_errors_total", type::counter,
      "Clients cut off for breaking the protocol."},
     &probe::client_violations},
    {{"pgsled_server_protocol_errors_total", type::counter, "Servers that broke the protocol."},
     &probe::server_violations},
    {{"pgsled_cancels_total", type::counter,
      "Cancel requests that named a session of this worker."},
     &probe::cancels},
    {{"pgsled_settings_applied_total", type::counter,
      "Times a connection's settings were changed for its next client."},
     &probe::settings_applied},
    {{"pgsled_pipelines_held_total", type::counter,
      "Times a client's next message waited because 4096 replies were owed to it."},
     &probe::pipelines_held},
    {{"pgsled_busy_polls_total", type::counter,
      "Times a worker looked for the next message for up to busy_poll before it slept."},
     &probe::busy_polls},
    {{"pgsled_busy_polls_in_vain_total", type::counter, "Of these, those that found none."},
     &probe::busy_polls_in_vain},
    {{"pgsled_shard_commits_total", type::counter,
      "Transactions over several shards that have committed."},
     &probe::shard_commits},
    {{"pgsled_shard_commits_failed_total", type::counter,
      "COMMITs of such that ended with an error, an unknown outcome included."},
     &probe::shard_commits_failed},
    {{"pgsled_pool_deadlocks_total", type::counter,
      "Such transactions that gave up because they waited for each other's connections."},
     &probe::pool_deadlocks},
};
struct declared_histogram {
  description what;
  metrics::histogram_cell probe::* cell;
};
constexpr declared_histogram histograms[] = {
    {{"pgsled_client_wait_seconds", type::histogram,
      "Time clients waited for a server connection."},
     &probe::wait},
    {{"pgsled_plan_seconds", type::histogram, "Time clients waited for a plan of the router."},
     &probe::plan},
    {{"pgsled_answer_seconds", type::histogram,
      "Time from a client's last message to the end of a server's answer, waits included."},
     &probe::answer},
};
constexpr description errors_description{"pgsled_errors_total", type::counter,
                                         "Errors told to clients, by SQLSTATE."};
}  // namespace

std::vector<std::shared_ptr<void>> probe::publish(metrics::registry& registry,
                                                  const std::string& worker) {
  std::vector<std::shared_ptr<void>> tokens;
  const metrics::labels labels{{"worker", worker}};
  for (const auto& entry : cells)
    tokens.push_back(registry.add(entry.what, labels, this->*entry.cell));
  for (const auto& [what, cell] : histograms)
    tokens.push_back(registry.add(what, labels, this->*cell));
  errors.publish(registry, worker);
  return tokens;
}

void error_counts::publish(metrics::registry& registry, const std::string& worker) {
  registry_ = &registry;
  worker_ = worker;
  publish("other", other_);
}

void error_counts::publish(const std::string& sqlstate, const metrics::cell& cell) {
  tokens_.push_back(registry_->add(errors_description,
                                   {{"worker", worker_}, {"sqlstate", sqlstate}}, cell));
}

void error_counts::add(std::string_view sqlstate) {
  auto known = codes_.find(sqlstate);
  if (known == codes_.end()) {
    constexpr std::string_view allowed = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const bool well_formed =
        sqlstate.size() == 5 && sqlstate.find_first_not_of(allowed) == std::string_view::npos;
    if (!well_formed || registry_ == nullptr || codes_.size() == most_codes) return other_.add();
    known = codes_.try_emplace(std::string(sqlstate)).first;
    publish(known->first, known->second);
  }
  known->second.add();
}

}  // namespace pgsled::frontend
