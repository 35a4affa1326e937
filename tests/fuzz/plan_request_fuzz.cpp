// The codec: never a crash; what decodes encodes to the same bytes.
#include <cstdlib>

#include "common/plan/plan.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgsled;
  const byte_span bytes{data, size};
  std::string back;
  if (const auto request = plan::decode_request(bytes)) {
    plan::encode(*request, back);
    if (back != as_text(bytes)) std::abort();
  }
  back.clear();
  if (const auto answer = plan::decode_answer(bytes)) {
    plan::encode(*answer, back);
    if (back != as_text(bytes)) std::abort();
  }
  return 0;
}
