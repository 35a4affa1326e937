#include "services/router/metrics/router_metrics.hpp"

namespace pgsled::router {

namespace {

using metrics::type;
constexpr metrics::description epoch{"pgsled_router_epoch", type::gauge, "Newest epoch."};
constexpr metrics::description members{"pgsled_router_members", type::gauge,
                                       "Live peers by service; a frontend counts once a worker."};
constexpr metrics::description requests{"pgsled_router_plan_requests_total", type::counter,
                                        "Plans asked for."};
constexpr metrics::description plans{"pgsled_router_plans_total", type::counter,
                                     "Plan requests by outcome."};
constexpr metrics::description waiting{"pgsled_router_plans_waiting", type::gauge,
                                       "Plan requests that wait for a catalog."};
constexpr metrics::description loads{"pgsled_router_catalog_loads_total", type::counter,
                                     "Times a shard's catalog was read."};
constexpr metrics::description reloads_done{"pgsled_router_reloads_total", type::counter,
                                            "Configurations reloaded."};
constexpr metrics::description reloads_failed{"pgsled_router_reload_failures_total", type::counter,
                                              "Reloads refused because of mistakes."};

}  // namespace

router_metrics::router_metrics() {
  auto& all = metrics::process_registry();
  const auto add = [&](const metrics::description& what, metrics::labels labels,
                       const metrics::cell& cell) {
    registered_.push_back(all.add(what, std::move(labels), cell));
  };
  add(epoch, {}, epoch_);
  add(members, {{"peers", "frontend"}}, frontends_);
  add(members, {{"peers", "pooler"}}, poolers_);
  add(members, {{"peers", "replicator"}}, replicators_);
  add(requests, {}, plan_requests_);
  add(plans, {{"outcome", "answered"}}, plans_answered_);
  add(plans, {{"outcome", "refused"}}, plans_refused_);
  add(plans, {{"outcome", "failed"}}, plans_failed_);
  add(waiting, {}, plans_waiting_);
  add(loads, {}, catalog_loads_);
  add(reloads_done, {}, reloads);
  add(reloads_failed, {}, reload_failures);
}

void router_metrics::update(const control& truth, const plan_desk& desk) {
  epoch_.set(truth.epoch());
  frontends_.set(truth.members().count("frontend", true));
  poolers_.set(truth.members().count("pooler", true));
  replicators_.set(truth.members().count("replicator", true));
  const auto& counted = desk.counted();
  plan_requests_.set(counted.requests);
  plans_answered_.set(counted.answered);
  plans_refused_.set(counted.refused);
  plans_failed_.set(counted.failed);
  catalog_loads_.set(counted.loads);
  plans_waiting_.set(desk.waiting());
}

}  // namespace pgsled::router
