#include "common/metrics/openmetrics.hpp"

#include <prometheus/metric_family.h>

#include <cmath>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

namespace pgsled::metrics {
namespace {

// Label values and help texts escape the same three characters.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += "\\n";
    else if (c == '"' || c == '\\') (out += '\\') += c;
    else out += c;
  }
  return out;
}

std::string number(double value) {
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (std::isnan(value)) return "NaN";
  return fmt::format("{}", value);
}

void line(std::string& to, std::string_view name, const prometheus::ClientMetric& of, double value,
          std::string_view bound = {}) {
  to += name;
  char before = '{';
  for (const auto& label : of.label) {
    fmt::format_to(std::back_inserter(to), "{}{}=\"{}\"", before, label.name, escaped(label.value));
    before = ',';
  }
  if (!bound.empty()) {
    fmt::format_to(std::back_inserter(to), "{}le=\"{}\"", before, bound);
    before = ',';
  }
  if (before == ',') to += '}';
  fmt::format_to(std::back_inserter(to), " {}\n", number(value));
}

// The bounds of histograms must look like floats: 1.0, never 1.
std::string bound_text(double value) {
  std::string text = number(value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string openmetrics_text(const std::vector<prometheus::MetricFamily>& families) {
  constexpr std::string_view total = "_total";
  std::string out;
  for (const auto& family : families) {
    std::string name = family.name;  // of the family: without the suffix that its samples carry
    const bool counter = family.type == prometheus::MetricType::Counter;
    const bool histogram = family.type == prometheus::MetricType::Histogram;
    if (counter && name.ends_with(total)) name.resize(name.size() - total.size());
    fmt::format_to(std::back_inserter(out), "# TYPE {} {}\n# HELP {} {}\n", name,
                   counter ? "counter" : histogram ? "histogram" : "gauge", name,
                   escaped(family.help));
    for (const auto& metric : family.metric) {
      if (histogram) {
        for (const auto& bucket : metric.histogram.bucket)
          line(out, name + "_bucket", metric, static_cast<double>(bucket.cumulative_count),
               bound_text(bucket.upper_bound));
        line(out, name + "_sum", metric, metric.histogram.sample_sum);
        line(out, name + "_count", metric, static_cast<double>(metric.histogram.sample_count));
      } else if (counter) {
        line(out, name + std::string(total), metric, metric.counter.value);
      } else {
        line(out, name, metric, metric.gauge.value);
      }
    }
  }
  return out + "# EOF\n";
}

}  // namespace pgsled::metrics
