#pragma once
// How often this program has called operator new.

#include <cstddef>

namespace pgsled::placement::testing {

std::size_t allocations();

}  // namespace pgsled::placement::testing
