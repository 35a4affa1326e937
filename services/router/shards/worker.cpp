#include "services/router/shards/worker.hpp"

#include <signal.h>

namespace pgsled::router {

void shard_worker::put(const std::string& name, job what) {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [waiting, old] : jobs_) {
      if (waiting != name) continue;
      old = std::move(what);
      return;
    }
    jobs_.emplace_back(name, std::move(what));
  }
  wake_.notify_one();
}

void shard_worker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void shard_worker::work() {
  sigset_t all;   // signals are the main thread's
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const job next = std::move(jobs_.front().second);
    jobs_.pop_front();
    lock.unlock();
    next(stop_);
  }
}

}  // namespace pgsled::router
