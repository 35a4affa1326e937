// The envelope's decoder must accept or refuse any bytes without reading outside of them, and what
// it accepts must survive being encoded again.
#include <cstdlib>

#include "common/bus/envelope.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace bus = pgsled::bus;
  const auto first = bus::decode({data, size});
  if (!first) return 0;
  std::string again;
  bus::encode(first->header, first->payload, again);
  const auto second = bus::decode(pgsled::as_bytes(again));
  if (!second || second->header.kind != first->header.kind ||
      second->header.request != first->header.request ||
      second->header.epoch != first->header.epoch ||
      pgsled::as_text(second->payload) != pgsled::as_text(first->payload))
    std::abort();
  return 0;
}
