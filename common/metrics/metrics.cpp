#include "common/metrics/metrics.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <bit>
#include <map>
#include <mutex>
#include <variant>

#include "common/base/result.hpp"
#include "common/metrics/openmetrics.hpp"

namespace pgsled::metrics {

void histogram_cell::observe_us(std::uint64_t microseconds) {
  constexpr int first_bits = 4;  // the first bucket ends at 16 µs
  const int bucket =
      microseconds <= 16 ? 0 : static_cast<int>(std::bit_width((microseconds - 1) >> first_bits));
  counts_[std::min(bucket, buckets)].add();
  sum_.add(microseconds);
}

double histogram_cell::upper_bound_seconds(int bucket) {
  return static_cast<double>(std::uint64_t{16} << bucket) / 1e6;
}

struct registry::state {
  using source = std::variant<const cell*, const histogram_cell*, std::function<double()>>;
  struct series {
    metrics::labels labels;
    source value;
  };
  struct family {
    metrics::type type;
    std::string help;
    std::map<std::uint64_t, series> members;  // by number of registration
  };

  mutable std::mutex mutex;
  std::map<std::string, family, std::less<>> families;
  std::uint64_t next = 0;

  static std::shared_ptr<void> add(const std::shared_ptr<state>& self, const description& what,
                                   metrics::labels with, source value) {
    const std::lock_guard lock(self->mutex);
    const std::string name(what.name);
    family& in = self->families.try_emplace(name, family{what.type, std::string(what.help), {}})
                     .first->second;
    PGSLED_ASSERT(in.type == what.type);
    const std::uint64_t id = ++self->next;
    in.members.emplace(id, series{std::move(with), std::move(value)});
    // A non-null pointer with nothing behind it: only the deleter matters.
    return {self.get(), [self, name, id](void*) { self->remove(name, id); }};
  }

  void remove(const std::string& name, std::uint64_t id) {
    const std::lock_guard lock(mutex);
    const auto found = families.find(name);
    found->second.members.erase(id);
    if (found->second.members.empty()) families.erase(found);
  }

  static prometheus::ClientMetric read(const series& from, metrics::type type,
                                       const metrics::labels& common) {
    prometheus::ClientMetric out;
    for (const auto& [name, value] : from.labels) out.label.push_back({name, value});
    for (const auto& [name, value] : common) {
      const bool own = std::any_of(from.labels.begin(), from.labels.end(),
                                   [&key = name](const auto& label) { return label.first == key; });
      if (!own) out.label.push_back({name, value});
    }
    if (type == type::histogram) {
      const auto* const* histogram = std::get_if<const histogram_cell*>(&from.value);
      if (histogram != nullptr) fill(out.histogram, **histogram);
      return out;
    }
    double value = 0;
    if (const auto* const* plain = std::get_if<const cell*>(&from.value))
      value = static_cast<double>((*plain)->get());
    else if (const auto* computed = std::get_if<std::function<double()>>(&from.value))
      value = (*computed)();
    (type == type::counter ? out.counter.value : out.gauge.value) = value;
    return out;
  }

  static void fill(prometheus::ClientMetric::Histogram& out, const histogram_cell& from) {
    std::uint64_t sum = 0;
    for (int i = 0; i <= histogram_cell::buckets; ++i) {
      sum += from.count(i);
      const double bound = i < histogram_cell::buckets ? histogram_cell::upper_bound_seconds(i)
                                                       : std::numeric_limits<double>::infinity();
      out.bucket.push_back({sum, bound});
    }
    // The count is the last bucket's, not a cell of its own, so that a scrape in the middle of
    // an observation stays consistent.
    out.sample_count = sum;
    out.sample_sum = static_cast<double>(from.sum_us()) / 1e6;
  }
};

registry::registry() : state_(std::make_shared<state>()) {}
registry::~registry() = default;

std::shared_ptr<void> registry::add(const description& what, labels with, const cell& from) {
  PGSLED_ASSERT(what.type != type::histogram);
  return state::add(state_, what, std::move(with), &from);
}
std::shared_ptr<void> registry::add(const description& what, labels with,
                                    const histogram_cell& from) {
  PGSLED_ASSERT(what.type == type::histogram);
  return state::add(state_, what, std::move(with), &from);
}
std::shared_ptr<void> registry::add(const description& what, labels with,
                                    std::function<double()> from) {
  PGSLED_ASSERT(what.type != type::histogram);
  return state::add(state_, what, std::move(with), std::move(from));
}

std::string registry::expose(const labels& common, bool openmetrics) const {
  std::vector<prometheus::MetricFamily> out;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [name, family] : state_->families) {
      prometheus::MetricFamily made;
      made.name = name;
      made.help = family.help;
      made.type = family.type == type::counter   ? prometheus::MetricType::Counter
                  : family.type == type::gauge ? prometheus::MetricType::Gauge
                                               : prometheus::MetricType::Histogram;
      for (const auto& [id, member] : family.members)
        made.metric.push_back(state::read(member, family.type, common));
      out.push_back(std::move(made));
    }
  }
  return openmetrics ? openmetrics_text(out) : prometheus::TextSerializer().Serialize(out);
}

registry& process_registry() {
  static registry* const it = new registry;  // never destroyed: tokens may be held by statics
  return *it;
}

}  // namespace pgsled::metrics
