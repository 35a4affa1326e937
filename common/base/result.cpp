#include "common/base/result.hpp"

#include <cstdio>
#include <cstdlib>

namespace pgsled {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "pgsled: broken invariant: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace pgsled
