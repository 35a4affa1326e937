// Shapes: never a crash; literals lie where they say; white space and comments do not count.
#include <cstdlib>

#include "common/sql/shape.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgsled;
  if (size < 1) return 0;
  const bool standard = data[0] & 1;
  const std::string_view sql{reinterpret_cast<const char*>(data + 1), size - 1};
  static sql::shape shape, again;
  sql::find_shape(sql, standard, shape);
  std::uint32_t end = 0;
  for (const auto& l : shape.literals) {
    if (l.offset < end || l.length == 0 || l.offset + l.length > sql.size()) std::abort();
    end = l.offset + l.length;
    if (sql::literal_value(sql, l).size() > l.length) std::abort();
  }
  if (shape.complete) {
    const std::string padded = "\t/* x */ " + std::string{sql} + "\n";
    sql::find_shape(padded, standard, again);
    if (again.text != shape.text || !again.complete) std::abort();
  }
  return 0;
}
