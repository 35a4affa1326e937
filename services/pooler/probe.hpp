#pragma once
// The pooler's metrics: cells that the reactor's thread writes, and their declarations. Life
// cycle: one a process, outlives whoever writes.

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "common/metrics/metrics.hpp"
#include "services/pooler/pools/pool.hpp"

namespace pgsled::pooler {

struct probe {
  probe();
  probe(const probe&) = delete;
  probe& operator=(const probe&) = delete;

  std::array<metrics::cell, phases> connections;  // by state
  metrics::cell orphans, holders, waiting;
  metrics::cell opened, open_failures, lent, recalls, cancels, cancels_late, holders_lost, cleaned,
      broken, checks_failed, messages_bad, demands_old, busy_polls, busy_polls_in_vain;
  metrics::histogram_cell connect_seconds;

 private:
  std::vector<std::shared_ptr<void>> registered_;
};

std::span<const metrics::description> declared_metrics();

}  // namespace pgsled::pooler
