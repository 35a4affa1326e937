#include "common/management/together.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace pgsled::management {
namespace {

using problem = std::optional<pg_error>;

TEST(Together, AsksEachOnceAlsoMoreThanThreads) {
  std::vector<std::atomic<int>> asked(3 * most_together + 1);
  EXPECT_FALSE(together(asked.size(), [&](std::size_t i) -> problem {
    ++asked[i];
    return std::nullopt;
  }));
  for (const auto& one : asked) EXPECT_EQ(one, 1);
  EXPECT_FALSE(together(0, [](std::size_t) -> problem {
    return pg_error{"XX000", "asked", {}, {}};
  }));
}

TEST(Together, AsksAllAtOnce) {
  std::mutex mutex;
  std::condition_variable came;
  std::size_t here = 0;
  // Each waits for all the others.
  EXPECT_FALSE(together(most_together, [&](std::size_t) -> problem {
    std::unique_lock lock(mutex);
    ++here;
    came.notify_all();
    if (came.wait_for(lock, std::chrono::seconds(60), [&] { return here == most_together; })) {
      return std::nullopt;
    }
    return pg_error{"57014", "the others did not come", {}, {}};
  }));
}

TEST(Together, AsksTheRestAfterAnErrorAndTellsTheFirst) {
  std::atomic<int> asked = 0;
  const auto error = together(5, [&](std::size_t i) -> problem {
    ++asked;
    if (i < 2) return std::nullopt;
    return pg_error{"55000", "shard " + std::to_string(i), {}, {}};
  });
  EXPECT_EQ(asked, 5);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->message, "shard 2");
}

TEST(Together, ThrowsWhatIsThrown) {
  std::atomic<int> asked = 0;
  EXPECT_THROW(together(5, [&](std::size_t i) -> problem {
    ++asked;
    if (i == 3) throw std::invalid_argument("stoll");
    return std::nullopt;
  }), std::invalid_argument);
  EXPECT_EQ(asked, 5);
}

}  // namespace
}  // namespace pgsled::management
