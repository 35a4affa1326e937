#pragma once
// views: the tables of SHOW, from what the router knows and what processes answered. Pure.
// Columns are PgDog's, by name and order, as far as they can be known; own ones come after them.

#include <cstdint>
#include <string>
#include <vector>

#include "services/router/admin/stats_window.hpp"
#include "services/router/admin/table.hpp"
#include "services/router/commit/jobs.hpp"
#include "services/router/control/control.hpp"

namespace pgsled::router {

struct router_facts {          // of the router's own process, for SHOW STATUS
  std::string instance, http, state = "ready";
  std::int64_t pid = 0, now = 0;
};

admin_table show_version();
admin_table show_help();
admin_table show_config(const config::configuration&);
admin_table show_databases(const control&);
admin_table show_status(const control&, const router_facts&);
admin_table show_tasks(const std::vector<gathered_row>&);
admin_table show_replication_slots(const std::vector<gathered_row>&);
admin_table show_transactions(const std::vector<open_transaction>&);
admin_table show_clients(const std::vector<gathered_row>&);
admin_table show_servers(const control&, const std::vector<gathered_row>&);
admin_table show_pools(const control&, const std::vector<gathered_row>&);
// Averages are those of the window: of times, for each of what they are of; else for each second.
admin_table show_stats(const control&, const std::vector<gathered_row>&, const stats_window&);
admin_table show_lists(const control&, const std::vector<gathered_row>&);
// A parameter that drivers ask every server for; false for a name that is none.
bool show_parameter(const std::string& name, admin_table& to);

}  // namespace pgsled::router
