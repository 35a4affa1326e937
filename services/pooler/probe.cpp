#include "services/pooler/probe.hpp"

namespace pgsled::pooler {
namespace {

using enum metrics::type;

constexpr metrics::description state_metric{
    "pgsled_pooler_server_connections", gauge,
    "Server connections of this pooler by state; lent ones are with a frontend."};

struct plain {
  metrics::description what;
  metrics::cell probe::*cell;
};
constexpr plain plain_metrics[] = {
    {{"pgsled_pooler_orphans", gauge,
      "Server connections that frontends still hold from a pooler that died."},
     &probe::orphans},
    {{"pgsled_pooler_holders", gauge, "Frontend workers connected to this pooler."},
     &probe::holders},
    {{"pgsled_pooler_waiting", gauge, "Clients that frontends say wait for a connection."},
     &probe::waiting},
    {{"pgsled_pooler_connects_total", counter, "Server connections opened."}, &probe::opened},
    {{"pgsled_pooler_connect_failures_total", counter, "Attempts to open one that failed."},
     &probe::open_failures},
    {{"pgsled_pooler_leases_total", counter, "Connections lent."}, &probe::lent},
    {{"pgsled_pooler_recalls_total", counter, "Leases asked back."}, &probe::recalls},
    {{"pgsled_pooler_cancels_total", counter, "Cancel requests sent to servers."}, &probe::cancels},
    {{"pgsled_pooler_cancels_late_total", counter,
      "Cancels dropped because their lease had ended."},
     &probe::cancels_late},
    {{"pgsled_pooler_holders_lost_total", counter,
      "Holders dropped: no answer to a recall, queue full, or broken messages."},
     &probe::holders_lost},
    {{"pgsled_pooler_cleaned_total", counter, "Connections that were cleaned with DISCARD ALL."},
     &probe::cleaned},
    {{"pgsled_pooler_broken_total", counter, "Leases that came back broken."}, &probe::broken},
    {{"pgsled_pooler_checks_failed_total", counter, "Health checks and cleanings that failed."},
     &probe::checks_failed},
    {{"pgsled_pooler_bad_messages_total", counter, "Lease messages that could not be read."},
     &probe::messages_bad},
    {{"pgsled_pooler_demands_old_total", counter,
      "Demands dropped: of an older epoch, for a pool that has gone."},
     &probe::demands_old},
    {{"pgsled_pooler_busy_polls_total", counter,
      "Times it looked for the next message for up to busy_poll before it slept."},
     &probe::busy_polls},
    {{"pgsled_pooler_busy_polls_in_vain_total", counter, "Of these, those that found none."},
     &probe::busy_polls_in_vain},
};
constexpr metrics::description connect_metric{"pgsled_pooler_connect_seconds", histogram,
                                              "Time to open a server connection, login included."};

}  // namespace

probe::probe() {
  auto& registry = metrics::process_registry();
  for (std::size_t i = 0; i < phases; ++i) {
    const auto phase = static_cast<connection_phase>(i);
    registered_.push_back(registry.add(state_metric, {{"state", name_of(phase)}}, connections[i]));
  }
  for (const auto& [what, cell] : plain_metrics) {
    registered_.push_back(registry.add(what, {}, this->*cell));
  }
  registered_.push_back(registry.add(connect_metric, {}, connect_seconds));
}

std::span<const metrics::description> declared_metrics() {
  static const auto all = [] {
    std::vector<metrics::description> list{state_metric, connect_metric};
    for (const auto& one : plain_metrics) list.push_back(one.what);
    return list;
  }();
  return all;
}

}  // namespace pgsled::pooler
