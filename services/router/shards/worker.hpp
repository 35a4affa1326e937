#pragma once
// shard_worker: the helper thread for blocking work on shards. At most one waiting job of a name;
// a newer one replaces it. Life cycle: construct, put(), destroy (stops within a poll of 100 ms,
// name resolution excepted, and joins). Thread rule: put() from one thread; jobs run on its own.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace pgsled::router {

class shard_worker {
 public:
  using job = std::function<void(const std::atomic<bool>& stop)>;
  shard_worker() : thread_([this] { work(); }) {}
  ~shard_worker() { stop(); }
  shard_worker(const shard_worker&) = delete;
  shard_worker& operator=(const shard_worker&) = delete;

  void put(const std::string& name, job);
  void stop();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::string, job>> jobs_;
  std::atomic<bool> stop_{false};
  std::thread thread_;   // last: it uses the others
};

}  // namespace pgsled::router
