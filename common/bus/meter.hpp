#pragma once
// What the sockets of all buses of the process count, by role. Any thread. Internal to common/bus.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace pgsled::bus {

enum class role : std::uint8_t { peer, hub, link };

// Several threads write (each frontend worker has a peer of its own), hence no metrics::cell.
struct meter {
  std::atomic<std::uint64_t> received{0}, sent{0}, refused{0}, malformed{0};
};

meter& meter_of(role);  // registered with the process's registry at the first call; never destroyed

}  // namespace pgsled::bus
