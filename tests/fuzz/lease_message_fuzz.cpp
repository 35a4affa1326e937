// Any bytes: decode() neither crashes nor accepts what it would not write itself.

#include <cstdlib>

#include "common/lease/messages.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto read = pgsled::lease::decode({data, size});
  if (!read) return 0;
  std::string again;
  pgsled::lease::encode(*read, again);
  if (pgsled::as_text({data, size}) != again) std::abort();
  return 0;
}
