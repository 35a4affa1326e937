#pragma once
// pgdog_metrics: the series of the suite under the names and labels that PgDog gives them, made of
// the tables of SHOW POOLS, SHOW STATS and SHOW LISTS, so that dashboards made for it go on. Pure.

#include <span>
#include <string>
#include <string_view>

#include "common/metrics/metrics.hpp"
#include "services/router/admin/table.hpp"

namespace pgsled::router {

enum class pgdog_source { lists, pools, stats };
struct pgdog_series {
  metrics::description what;      // without the namespace
  pgdog_source from;
  std::string_view column;        // of that table
  double scale = 1;               // what the column's unit is in the series' unit
};
std::span<const pgdog_series> declared_pgdog_metrics();

struct pgdog_tables {
  admin_table lists, pools, stats;
};
// `prefix`: openmetrics_namespace, an underscore is put behind it where it has none. Whole families
// are left out once `limit` bytes are reached. Without "# EOF". OpenMetrics knows no counters
// without _total, as PgDog names them: there their type is unknown.
std::string pgdog_metrics(const pgdog_tables&, std::string prefix, bool openmetrics,
                          std::size_t limit);

}  // namespace pgsled::router
