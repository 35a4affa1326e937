// In a file of its own: inlined into its callers g++ 12 takes free() for a mismatch of new.
#include "tests/unit/placement/allocations.hpp"

#include <cstdlib>
#include <new>

namespace {
std::size_t count = 0;
}

void* operator new(std::size_t size) {
  ++count;
  if (void* made = std::malloc(size)) return made;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++count;
  return std::malloc(size);
}
void operator delete(void* gone, const std::nothrow_t&) noexcept { std::free(gone); }
void operator delete(void* gone) noexcept { std::free(gone); }
void operator delete(void* gone, std::size_t) noexcept { std::free(gone); }

namespace pgsled::placement::testing {

std::size_t allocations() { return count; }

}  // namespace pgsled::placement::testing
