#pragma once
// cancels: which frontend worker a cancel key belongs to. A key's pid is 31 bits, 11 bits number
// of the worker and 20 bits session of that worker; the secret is checked by the worker. Pure.

#include <cstdint>
#include <optional>

#include "common/base/bytes.hpp"

namespace pgsled::router {

// Payload of an envelope of kind cancel: pid as u32 little-endian, then the secret.
inline std::optional<std::uint32_t> holder_of_cancel(byte_span payload) {
  if (payload.size() < 4 + 4 || payload.size() > 4 + 256) return std::nullopt;
  const auto pid = load_le<std::uint32_t>(payload.data());
  const std::uint32_t holder = pid >> 20;
  if (holder == 0 || (pid >> 31) != 0) return std::nullopt;
  return holder;
}

}  // namespace pgsled::router
