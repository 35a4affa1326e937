#pragma once
// Metrics, declared once: a static list of descriptions per component, a plain struct of cells
// on the hot path (one writer each, relaxed atomics: no lock, no look-up), and a registry that
// reads the cells when somebody scrapes. docs/metrics.md repeats the declarations; a test compares
// it with what is served.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgsled::metrics {

// One writer thread; any reader.
class cell {
 public:
  void add(std::uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void subtract(std::uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Power-of-two buckets from 16 µs to 16.8 s; exposed in seconds.
class histogram_cell {
 public:
  static constexpr int buckets = 21;
  void observe_us(std::uint64_t microseconds);
  std::uint64_t count(int bucket) const { return counts_[bucket].get(); }
  std::uint64_t sum_us() const { return sum_.get(); }
  static double upper_bound_seconds(int bucket);

 private:
  cell counts_[buckets + 1], sum_;
};

enum class type { counter, gauge, histogram };
struct description {
  std::string_view name;  // pgsled_…, base unit and _total as Prometheus asks
  metrics::type type;
  std::string_view help;
};
using labels = std::vector<std::pair<std::string, std::string>>;

class registry {
 public:
  registry();
  ~registry();
  // The cells must outlive the registry or be removed by the returned token's destruction.
  [[nodiscard]] std::shared_ptr<void> add(const description&, labels, const cell&);
  [[nodiscard]] std::shared_ptr<void> add(const description&, labels, const histogram_cell&);
  // Called at each scrape, for values that are computed, on the scraping thread and with the
  // registry locked: it must be safe there and must not touch the registry.
  [[nodiscard]] std::shared_ptr<void> add(const description&, labels, std::function<double()>);
  // Prometheus text exposition / OpenMetrics 1.0, `common` labels added to every series.
  std::string expose(const labels& common, bool openmetrics) const;

 private:
  struct state;
  std::shared_ptr<state> state_;  // tokens may outlive the registry
};

registry& process_registry();

}  // namespace pgsled::metrics
