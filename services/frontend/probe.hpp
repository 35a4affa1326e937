#pragma once
// The frontend's metrics, declared once. One `probe` per worker thread; that thread writes.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/metrics/metrics.hpp"

namespace pgsled::frontend {

// Errors told to clients, by SQLSTATE. The first most_codes codes have a series of their own, from
// when they are first seen; the rest share one, because a server's function may raise any code.
class error_counts {
 public:
  static constexpr std::size_t most_codes = 100;
  void publish(metrics::registry&, const std::string& worker);
  void add(std::string_view sqlstate);

 private:
  void publish(const std::string& sqlstate, const metrics::cell&);

  metrics::registry* registry_ = nullptr;
  std::string worker_;
  metrics::cell other_;
  std::map<std::string, metrics::cell, std::less<>> codes_;
  std::vector<std::shared_ptr<void>> tokens_;
};

struct probe {
  metrics::cell clients, clients_waiting, clients_accepted, clients_refused, logins_failed;
  metrics::cell queries, transactions, bytes_from_clients, bytes_to_clients;
  metrics::cell leases, leases_idle, leases_granted, leases_broken, pinned;
  metrics::cell plans_cached, plans_cold, plans_refused, fence_waits;
  metrics::cell plan_cache_bytes, plan_cache_evictions;
  metrics::cell statement_cache_bytes, statement_cache_evictions, statements_prepared;
  metrics::cell checkout_timeouts, client_violations, server_violations, cancels, settings_applied;
  metrics::cell pipelines_held, busy_polls, busy_polls_in_vain;
  metrics::cell shard_commits, shard_commits_failed, pool_deadlocks;
  metrics::histogram_cell wait, plan, answer;
  error_counts errors;

  // Series of this worker, until the tokens go.
  std::vector<std::shared_ptr<void>> publish(metrics::registry&, const std::string& worker);
};

}  // namespace pgsled::frontend
