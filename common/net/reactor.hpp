#pragma once
// reactor: one thread's event loop over epoll, level-triggered. The only loop on the data path
// (docs/decisions/0003 says why it is not Asio's). Life cycle: construct, add watchers, run()
// until stop(). Thread rule: everything belongs to the thread that calls run(), except post()
// and stop(), which any thread may call.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "common/net/busy_poll.hpp"

namespace pgsled::net {

using clock = std::chrono::steady_clock;
using time_point = clock::time_point;
using duration = clock::duration;

// Whoever owns a descriptor derives from this. `events` are EPOLL* bits.
class watcher {
 public:
  virtual void on_events(std::uint32_t events) = 0;

 protected:
  ~watcher() = default;
};

class reactor {
 public:
  reactor();
  ~reactor();
  reactor(const reactor&) = delete;
  reactor& operator=(const reactor&) = delete;

  // The descriptor stays the caller's. A watcher may remove itself or any other, and delete it,
  // from inside on_events(): events already fetched for a removed descriptor are dropped.
  void add(int fd, std::uint32_t events, watcher* target);
  void modify(int fd, std::uint32_t events, watcher* target);
  void remove(int fd);
  // From now on for these events, whatever it was; none: removed, unless it is another's now.
  // Costs no system call when that is so already.
  void watch(int fd, std::uint32_t events, watcher* target);
  bool watches(int fd, const watcher* target) const;

  // One-shot timers. Ids are never reused; cancelling an unknown or fired id does nothing.
  using timer_id = std::uint64_t;
  timer_id at(time_point when, std::function<void()> task);
  timer_id after(duration delay, std::function<void()> task) {
    return at(now() + delay, std::move(task));
  }
  void cancel(timer_id id);

  // Runs before the loop waits again, in order; used to look at edge-triggered sources once more.
  void defer(std::function<void()> task);
  // Runs once nothing more is ready, at the latest after a few turns: for what costs less sent
  // together with what those turns add to it.
  void gather(std::function<void()> task);
  // From any thread. Bounded only by memory: callers are few and say so.
  void post(std::function<void()> task);

  // The time at which this turn of the loop began.
  time_point now() const;
  // From now on the calling thread, when woken, does not take the processor from whoever runs on it
  // (SCHED_BATCH): for loops of the data path, which are woken by those who are about to say more.
  // A processor that is idle runs it at once.
  static void wake_patiently();
  // Before it sleeps the loop looks for events so long, where that has proved worth it, and as long
  // as nobody else wants the processor; 0, as at first: never.
  void look_before_sleep(duration how_long);
  void may_look(bool);   // false: until it is true again it sleeps at once
  const busy_poll& looks() const;
  void run();
  void stop();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::net
