#include "common/bus/meter.hpp"

#include "common/metrics/metrics.hpp"

namespace pgsled::bus {
namespace {

using metrics::description;
using metrics::type;

constexpr description received_total{"pgsled_bus_received_total", type::counter,
                                     "Messages received from other processes."};
constexpr description sent_total{"pgsled_bus_sent_total", type::counter,
                                 "Envelopes handed to ZeroMQ for other processes."};
constexpr description refused_total{
    "pgsled_bus_refused_total", type::counter,
    "Envelopes not sent: the peer is unknown, not connected, or its queue is full."};
constexpr description malformed_total{"pgsled_bus_malformed_total", type::counter,
                                      "Messages dropped because they are no envelopes."};
constexpr const char* role_names[] = {"peer", "hub", "link"};

struct all_meters {
  std::array<meter, std::size(role_names)> meters;
  std::vector<std::shared_ptr<void>> tokens;

  all_meters() {
    for (std::size_t i = 0; i < meters.size(); ++i) {
      add(received_total, role_names[i], meters[i].received);
      add(sent_total, role_names[i], meters[i].sent);
      add(refused_total, role_names[i], meters[i].refused);
      add(malformed_total, role_names[i], meters[i].malformed);
    }
  }
  void add(const description& what, const char* name, const std::atomic<std::uint64_t>& from) {
    tokens.push_back(metrics::process_registry().add(
        what, {{"socket", name}},
        [&from] { return static_cast<double>(from.load(std::memory_order_relaxed)); }));
  }
};

}  // namespace

meter& meter_of(role which) {
  static all_meters* const all = new all_meters;
  return all->meters[static_cast<std::size_t>(which)];
}

}  // namespace pgsled::bus
