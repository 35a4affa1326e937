#include "services/replicator/move/crew.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <thread>
#include <vector>

namespace pgsled::replicator {

namespace {

constexpr std::chrono::milliseconds between_looks{100};

}  // namespace

void move_crew::fail(pg_error why) {
  const std::lock_guard lock(mutex_);
  if (!first_) first_ = std::move(why);   // later ones are mostly its consequence
  failed_ = true;
}

void move_crew::pause(std::int64_t microseconds) const {
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (!failed()) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left.count() <= 0) return;
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(left, between_looks));
  }
}

trouble move_crew::work(std::uint32_t count, const std::function<trouble(std::uint32_t)>& one,
                        const std::function<trouble()>& watch) {
  std::condition_variable ended;
  std::mutex of_ended;
  std::uint32_t at_work = std::min(std::max(count, 1u), most);
  std::vector<std::thread> threads;
  for (std::uint32_t number = 0, all = at_work; number < all; ++number) {
    threads.emplace_back([&, number] {
      try {
        if (auto error = one(number)) fail(std::move(*error));
      } catch (const std::exception& e) {
        fail({"53000", e.what(), {}, {}});
      }
      const std::lock_guard lock(of_ended);
      --at_work;
      ended.notify_one();
    });
  }
  for (bool over = false; !over;) {
    {
      std::unique_lock lock(of_ended);
      over = ended.wait_for(lock, between_looks, [&] { return at_work == 0; });
    }
    if (failed()) continue;
    if (auto error = watch()) fail(std::move(*error));
  }
  for (auto& thread : threads) thread.join();
  const std::lock_guard lock(mutex_);
  return first_;
}

}  // namespace pgsled::replicator
