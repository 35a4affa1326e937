#pragma once
// OpenMetrics 1.0 text from the same families that the older text format is made of, which
// prometheus-cpp 1.0 cannot write. Internal to common/metrics. Pure.

#include <string>
#include <vector>

namespace prometheus {
struct MetricFamily;
}

namespace pgsled::metrics {

std::string openmetrics_text(const std::vector<prometheus::MetricFamily>&);

}  // namespace pgsled::metrics
