#pragma once
// together: the same for several servers at once, each call on a thread: what is asked of many takes
// about as long as what is asked of one. Thread rule: blocks its caller.

#include <cstddef>
#include <functional>
#include <optional>

#include "common/base/result.hpp"

namespace pgsled::management {

// Threads of one call; fewer when the process can have no more.
inline constexpr std::size_t most_together = 16;

// `one` is called with every number below `count`, whatever another call has come to, and all have
// returned when this does. The error of the lowest number; what is thrown is thrown on.
std::optional<pg_error> together(std::size_t count,
                                 const std::function<std::optional<pg_error>(std::size_t)>& one);

}  // namespace pgsled::management
