#pragma once
// change: whether another mapping places some value on another shard than the present one does, so
// that rows that are stored would not be found any more. Pure.

#include <cstdint>
#include <optional>
#include <string>

#include "common/placement/rule.hpp"

namespace pgsled::placement {

struct moved_value {
  std::string value;                    // as text
  std::uint32_t from = 0;
  std::optional<std::uint32_t> to;      // none: it has no place any more
};

// The first value found; none when every value that has a place keeps it. Values that have none in
// `before` may get one: there are no rows of them. Both of the same type and without flaws.
std::optional<moved_value> first_moved(const mapping& before, const mapping& now);

}  // namespace pgsled::placement
