// Any bytes: a batch that is read whole is the one that would be written.

#include <cstdlib>

#include "common/lease/relay_batch.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pgsled::lease::relay_reader parts({data, size});
  pgsled::lease::relay_batch again;
  while (const auto part = parts.next()) {
    again.add(part->lease, part->generation, part->what, part->bytes);
  }
  const auto written = pgsled::as_text(again.payload());
  const auto given = pgsled::as_text({data, size});
  if (parts.good() ? given != written : !given.starts_with(written)) std::abort();
  return 0;
}
