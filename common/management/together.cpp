#include "common/management/together.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace pgsled::management {

std::optional<pg_error> together(std::size_t count,
                                 const std::function<std::optional<pg_error>(std::size_t)>& one) {
  std::vector<std::optional<pg_error>> errors(count);
  std::vector<std::exception_ptr> thrown(count);
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        errors[i] = one(i);
      } catch (...) {
        thrown[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> others;
    try {
      for (std::size_t i = 1; i < std::min(count, most_together); ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // No more threads: those that are there do it all.
    }
    work();
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (thrown[i]) std::rethrow_exception(thrown[i]);
    if (errors[i]) return std::move(errors[i]);
  }
  return std::nullopt;
}

}  // namespace pgsled::management
