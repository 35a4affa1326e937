#pragma once
// router_metrics: the router's own series. Cells are set from the machines' counts on every tick,
// so that a scrape never touches the machines. Thread rule: update() on the router's thread.

#include <memory>
#include <vector>

#include "common/metrics/metrics.hpp"
#include "services/router/control/control.hpp"
#include "services/router/plan_desk.hpp"

namespace pgsled::router {

class router_metrics {
 public:
  router_metrics();
  void update(const control&, const plan_desk&);
  metrics::cell reloads, reload_failures;

 private:
  metrics::cell epoch_, frontends_, poolers_, replicators_;
  metrics::cell plan_requests_, plans_answered_, plans_refused_, plans_failed_, plans_waiting_;
  metrics::cell catalog_loads_;
  std::vector<std::shared_ptr<void>> registered_;   // last: gone before the cells
};

}  // namespace pgsled::router
