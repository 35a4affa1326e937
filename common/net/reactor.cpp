#include "common/net/reactor.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <limits>
#include <mutex>
#include <system_error>
#include <vector>

#include "common/base/result.hpp"
#include "common/net/socket.hpp"

namespace pgsled::net {
namespace {

constexpr int batch_size = 256;
constexpr int most_gathering_turns = 4;
// A thread that yields and comes back later than this has let another one run.
constexpr auto longest_yield = std::chrono::microseconds(5);
constexpr auto no_position = std::numeric_limits<std::uint32_t>::max();

// An indexed binary heap: add and cancel are O(log n), memory is reused, and an id names a slot
// and its generation, so that a stale id can never hit a younger timer.
class timer_heap {
 public:
  std::uint64_t add(time_point when, std::function<void()> task) {
    std::uint32_t index;
    if (free_.empty()) {
      index = static_cast<std::uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    slot& s = slots_[index];
    s.task = std::move(task);
    s.position = static_cast<std::uint32_t>(heap_.size());
    heap_.push_back({when, ++sequence_, index});
    sift_up(s.position);
    return (std::uint64_t{s.generation} << 32) | index;
  }

  void cancel(std::uint64_t id) {
    const auto index = static_cast<std::uint32_t>(id);
    if (index >= slots_.size()) return;
    const slot& s = slots_[index];
    if (s.generation != id >> 32 || s.position == no_position) return;
    const std::function<void()> dropped = take(s.position);  // destroyed when the heap is whole
  }

  bool empty() const { return heap_.empty(); }
  time_point first() const { return heap_.front().when; }
  std::uint64_t sequence() const { return sequence_; }
  bool due(time_point now, std::uint64_t newest) const {
    return !heap_.empty() && heap_.front().when <= now && heap_.front().sequence <= newest;
  }
  std::function<void()> take_first() { return take(0); }

 private:
  struct slot {
    std::function<void()> task;
    std::uint32_t position = no_position;
    std::uint32_t generation = 1;
  };
  struct entry {
    time_point when;
    std::uint64_t sequence;  // equal times fire in the order they were set
    std::uint32_t index;
    bool before(const entry& other) const {
      return when != other.when ? when < other.when : sequence < other.sequence;
    }
  };

  std::function<void()> take(std::uint32_t position) {
    const std::uint32_t index = heap_[position].index;
    const entry last = heap_.back();
    heap_.pop_back();
    if (position < heap_.size()) {
      place(position, last);
      sift_up(position);
      sift_down(slots_[last.index].position);
    }
    slot& s = slots_[index];
    s.position = no_position;
    ++s.generation;
    free_.push_back(index);
    return std::exchange(s.task, nullptr);
  }
  void place(std::uint32_t position, const entry& e) {
    heap_[position] = e;
    slots_[e.index].position = position;
  }
  void sift_up(std::uint32_t position) {
    const entry moving = heap_[position];
    while (position > 0) {
      const std::uint32_t parent = (position - 1) / 2;
      if (!moving.before(heap_[parent])) break;
      place(position, heap_[parent]);
      position = parent;
    }
    place(position, moving);
  }
  void sift_down(std::uint32_t position) {
    const entry moving = heap_[position];
    const auto size = static_cast<std::uint32_t>(heap_.size());
    for (;;) {
      std::uint32_t child = 2 * position + 1;
      if (child >= size) break;
      if (child + 1 < size && heap_[child + 1].before(heap_[child])) ++child;
      if (!heap_[child].before(moving)) break;
      place(position, heap_[child]);
      position = child;
    }
    place(position, moving);
  }

  std::vector<entry> heap_;
  std::vector<slot> slots_;
  std::vector<std::uint32_t> free_;
  std::uint64_t sequence_ = 0;
};

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

struct reactor::state {
  struct registration {
    watcher* target = nullptr;
    std::uint32_t events = 0;
  };

  unique_fd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  unique_fd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  // A time-out given to epoll_wait() is set up and taken down in the kernel at every wait; this one
  // only when a timer is due before `alarm_at`. It may go off for timers that were cancelled.
  unique_fd alarm{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  time_point alarm_at = time_point::max();
  std::vector<registration> watchers;  // by descriptor
  std::array<epoll_event, batch_size> batch{};
  int batch_count = 0, batch_position = 0;
  timer_heap timers;
  std::vector<std::function<void()>> deferred, deferred_running;
  std::vector<std::function<void()>> gathered, gathered_running;
  int gathering_turns = 0;
  std::vector<std::function<void()>> posted_running;
  time_point now{};
  bool running = false;
  duration look_for{0};
  bool may_look = true;
  busy_poll looking;

  std::mutex mutex;
  std::vector<std::function<void()>> posted;  // guarded by mutex
  std::atomic<bool> stopping{false};

  void control(int operation, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll.get(), operation, fd, &event) != 0) fail("epoll_ctl");
  }

  void forget_fetched(int fd) {
    for (int i = batch_position; i < batch_count; ++i) {
      epoll_event& event = batch[static_cast<std::size_t>(i)];
      if (event.data.fd == fd) event.data.fd = -1;
    }
  }

  void wake_up() {
    const std::uint64_t one = 1;
    // Only a full counter makes this fail, and then the loop is awake anyway.
    [[maybe_unused]] const auto n = ::write(wake.get(), &one, sizeof one);
  }

  void run_posted() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto n = ::read(wake.get(), &count, sizeof count);
    {
      const std::lock_guard lock(mutex);
      posted_running.swap(posted);
    }
    for (auto& task : posted_running) task();
    posted_running.clear();
  }

  // For epoll_wait(): what is due later is the alarm's.
  int wait_ms() {
    if (!deferred.empty() || !gathered.empty() || stopping.load(std::memory_order_acquire))
      return 0;
    if (!timers.empty() && timers.first() < alarm_at) set_alarm(timers.first());
    return -1;
  }

  int wait() {
    const int ms = wait_ms();
    if (ms != 0 && may_look && look_for > duration::zero() && looking.due()) {
      if (const int n = look(); n != 0) return n;
    }
    return ::epoll_wait(epoll.get(), batch.data(), batch_size, ms);
  }

  // What is ready before `look_for` is over; 0: nothing. Others who can run come first: where there
  // are any the processor is not idle, and sleeping costs nothing.
  int look() {
    int n = ::epoll_wait(epoll.get(), batch.data(), batch_size, 0);
    if (n != 0) return n;
    const auto began = clock::now();
    for (auto last = began;;) {
      ::sched_yield();
      n = ::epoll_wait(epoll.get(), batch.data(), batch_size, 0);
      if (n != 0) {
        looking.found();
        return n;
      }
      const auto then = clock::now();
      if (then - last > longest_yield || then - began >= look_for) {
        looking.in_vain();
        return 0;
      }
      last = then;
    }
  }

  void set_alarm(time_point when) {
    // A time of 0 would switch it off.
    const auto ns = std::max<std::chrono::nanoseconds>(when.time_since_epoch(),
                                                       std::chrono::nanoseconds(1));
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(ns);
    itimerspec spec{};
    spec.it_value.tv_sec = seconds.count();
    spec.it_value.tv_nsec = (ns - seconds).count();
    if (::timerfd_settime(alarm.get(), TFD_TIMER_ABSTIME, &spec, nullptr) != 0)
      fail("timerfd_settime");
    alarm_at = when;
  }

  void alarm_rang() {
    std::uint64_t times = 0;
    [[maybe_unused]] const auto n = ::read(alarm.get(), &times, sizeof times);
    alarm_at = time_point::max();
  }

  void dispatch() {
    for (batch_position = 0; batch_position < batch_count;) {
      const epoll_event event = batch[static_cast<std::size_t>(batch_position++)];
      const int fd = event.data.fd;
      if (fd < 0) continue;
      if (fd == wake.get()) {
        run_posted();
        continue;
      }
      if (fd == alarm.get()) {
        alarm_rang();
        continue;
      }
      const registration& to = watchers[static_cast<std::size_t>(fd)];
      // The interest may have shrunk since the batch was fetched.
      const std::uint32_t events = event.events & (to.events | EPOLLERR | EPOLLHUP);
      if (to.target != nullptr && events != 0) to.target->on_events(events);
    }
    batch_count = batch_position = 0;
  }

  void run_timers() {
    // A timer set by a timer waits for the next turn, so that sockets get their share.
    const std::uint64_t newest = timers.sequence();
    while (timers.due(now, newest)) timers.take_first()();
  }

  void run_deferred() {
    deferred_running.swap(deferred);
    for (auto& task : deferred_running) task();
    deferred_running.clear();
  }

  void run_gathered(bool nothing_ready) {
    if (gathered.empty() || (!nothing_ready && ++gathering_turns < most_gathering_turns)) return;
    gathering_turns = 0;
    gathered_running.swap(gathered);
    for (auto& task : gathered_running) task();
    gathered_running.clear();
  }
};

reactor::reactor() : state_(std::make_unique<state>()) {
  if (!state_->epoll || !state_->wake || !state_->alarm) fail("reactor");
  state_->control(EPOLL_CTL_ADD, state_->wake.get(), EPOLLIN);
  state_->control(EPOLL_CTL_ADD, state_->alarm.get(), EPOLLIN);
}
reactor::~reactor() = default;

void reactor::add(int fd, std::uint32_t events, watcher* target) {
  PGSLED_ASSERT(fd >= 0 && target != nullptr);
  auto& table = state_->watchers;
  const auto index = static_cast<std::size_t>(fd);
  if (index >= table.size()) table.resize(std::max(index + 1, table.size() * 2));
  PGSLED_ASSERT(table[index].target == nullptr);
  state_->control(EPOLL_CTL_ADD, fd, events);
  table[index] = {target, events};
}

void reactor::modify(int fd, std::uint32_t events, watcher* target) {
  auto& table = state_->watchers;
  const auto index = static_cast<std::size_t>(fd);
  PGSLED_ASSERT(fd >= 0 && index < table.size() && table[index].target != nullptr);
  // What was fetched for one owner is not for the next; level-triggered, it comes again.
  if (table[index].target != target) state_->forget_fetched(fd);
  if (table[index].events != events) state_->control(EPOLL_CTL_MOD, fd, events);
  table[index] = {target, events};
}

void reactor::remove(int fd) {
  auto& table = state_->watchers;
  const auto index = static_cast<std::size_t>(fd);
  if (fd < 0 || index >= table.size() || table[index].target == nullptr) return;
  table[index] = {};
  state_->forget_fetched(fd);
  // The kernel may have forgotten a descriptor that was closed too early; nothing is left to do.
  ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void reactor::watch(int fd, std::uint32_t events, watcher* target) {
  if (events == 0) {
    if (watches(fd, target)) remove(fd);
    return;
  }
  const auto& table = state_->watchers;
  const auto index = static_cast<std::size_t>(fd);
  if (index < table.size() && table[index].target != nullptr) {
    modify(fd, events, target);
  } else {
    add(fd, events, target);
  }
}

bool reactor::watches(int fd, const watcher* target) const {
  const auto& table = state_->watchers;
  const auto index = static_cast<std::size_t>(fd);
  return fd >= 0 && index < table.size() && table[index].target == target;
}

reactor::timer_id reactor::at(time_point when, std::function<void()> task) {
  return state_->timers.add(when, std::move(task));
}
void reactor::cancel(timer_id id) { state_->timers.cancel(id); }

void reactor::defer(std::function<void()> task) { state_->deferred.push_back(std::move(task)); }

void reactor::gather(std::function<void()> task) { state_->gathered.push_back(std::move(task)); }

void reactor::post(std::function<void()> task) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->posted.push_back(std::move(task));
  }
  state_->wake_up();
}

time_point reactor::now() const { return state_->running ? state_->now : clock::now(); }

void reactor::wake_patiently() {
  const sched_param none{};
  // Where it is not allowed all works as well, only with more turns.
  [[maybe_unused]] const auto done = ::sched_setscheduler(0, SCHED_BATCH, &none);
}

void reactor::look_before_sleep(duration how_long) { state_->look_for = how_long; }
void reactor::may_look(bool may) { state_->may_look = may; }
const busy_poll& reactor::looks() const { return state_->looking; }

void reactor::run() {
  state& s = *state_;
  PGSLED_ASSERT(!s.running);
  struct scope {
    state& of;
    ~scope() {
      of.running = false;
      of.stopping.store(false, std::memory_order_release);
    }
  } const guard{s};
  s.now = clock::now();
  s.running = true;
  while (!s.stopping.load(std::memory_order_acquire)) {
    const int n = s.wait();
    if (n < 0 && errno != EINTR) fail("epoll_wait");
    s.batch_count = std::max(n, 0);
    s.now = clock::now();
    s.dispatch();
    s.run_timers();
    s.run_deferred();
    s.run_gathered(n <= 0);
  }
}

void reactor::stop() {
  state_->stopping.store(true, std::memory_order_release);
  state_->wake_up();
}

}  // namespace pgsled::net
