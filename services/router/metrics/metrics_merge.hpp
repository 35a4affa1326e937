#pragma once
// metrics_merge: the expositions of many processes as one: every family once, its series with the
// labels service and instance. Pure; text in, text out.

#include <string>
#include <string_view>
#include <vector>

namespace pgsled::router {

struct process_metrics {
  std::string service, instance, text;
};
inline constexpr std::size_t max_metrics_bytes = 64u << 20;   // the rest is left out

// `more`: families that stand behind them as they are.
std::string merge_metrics(const std::vector<process_metrics>&, std::string_view more,
                          bool openmetrics);

// The process a worker belongs to: "frontend-1.0" → "frontend-1"; others as they are.
std::string process_instance(const std::string& service, const std::string& instance);

}  // namespace pgsled::router
