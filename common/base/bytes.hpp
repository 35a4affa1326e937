#pragma once
// Views of raw bytes, and the two directions of little-endian and network-order integers.
// No allocation, no failure: the caller has checked the length.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace pgsled {

using byte_span = std::span<const std::uint8_t>;

inline byte_span as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(byte_span bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class Integer>
Integer load_be(const void* from) {
  Integer value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (sizeof value == 8)
    return static_cast<Integer>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
  if constexpr (sizeof value == 4)
    return static_cast<Integer>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
  if constexpr (sizeof value == 2)
    return static_cast<Integer>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
  return value;
}
template <class Integer>
void store_be(void* to, Integer value) {
  const Integer swapped = load_be<Integer>(&value);
  std::memcpy(to, &swapped, sizeof swapped);
}
// Little-endian is the byte order of the machines we build for; asserted once here.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
template <class Integer>
Integer load_le(const void* from) {
  Integer value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class Integer>
void store_le(void* to, Integer value) {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace pgsled
