// Session effects: never a crash; statements lie in order; the cheap look errs to the safe side.
#include <cstdlib>

#include "common/sql/statement.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgsled;
  if (size < 1) return 0;
  const bool standard = data[0] & 1;
  const std::string_view text{reinterpret_cast<const char*>(data + 1), size - 1};
  static std::vector<sql::statement> found;
  sql::find_statements(text, standard, found);
  std::uint32_t end = 0;
  for (const auto& s : found) {
    if (s.offset < end || s.length == 0 || s.offset + s.length > text.size()) std::abort();
    end = s.offset + s.length;
  }
  if (!sql::may_affect_session(text)) {
    for (const auto& s : found) {
      if (s.effect != sql::effect::none) std::abort();
    }
  }
  return 0;
}
