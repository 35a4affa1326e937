#pragma once
// result<T>: a value, or an error that an owner higher up can act on. For failures of the
// environment and of peers; what only a bug can cause is PGSLED_ASSERT.

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace pgsled {

// An error in PostgreSQL's own terms, ready to be sent to a client.
struct pg_error {
  std::string sqlstate = "XX000";  // five characters
  std::string message;             // what and why
  std::string hint;                // what to do about it; may be empty
  std::string detail;              // may be empty
};

template <class T>
class [[nodiscard]] result : public tl::expected<T, pg_error> {
 public:
  using tl::expected<T, pg_error>::expected;
  result(tl::expected<T, pg_error> other) : tl::expected<T, pg_error>(std::move(other)) {}
};

inline tl::unexpected<pg_error> failure(std::string sqlstate, std::string message,
                                        std::string hint = {}) {
  return tl::unexpected<pg_error>(
      pg_error{std::move(sqlstate), std::move(message), std::move(hint), {}});
}

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace pgsled

// Always on. A broken invariant that sessions share ends the process; restart is cheap and tested.
#define PGSLED_ASSERT(expression)      \
  ((expression) ? static_cast<void>(0) \
                : ::pgsled::assertion_failed(#expression, __FILE__, __LINE__))
