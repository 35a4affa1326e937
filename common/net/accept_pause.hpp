#pragma once
// accept_pause: for a listener whose accept() fails, as without file descriptors. Who waits stays in the
// kernel's queue, so that it would be ready without end: it is not looked at for a while. Owned by
// the listener's watcher; goes before the reactor. Thread rule: the reactor's.

#include <sys/epoll.h>

#include "common/net/reactor.hpp"

namespace pgsled::net {

class accept_pause {
 public:
  accept_pause(reactor& r, watcher& listener) : reactor_(r), listener_(listener) {}
  ~accept_pause() { reactor_.cancel(timer_); }
  accept_pause(const accept_pause&) = delete;
  accept_pause& operator=(const accept_pause&) = delete;

  void rest(int fd, duration how_long) {
    reactor_.watch(fd, 0, &listener_);
    timer_ = reactor_.after(how_long, [this, fd] { reactor_.watch(fd, EPOLLIN, &listener_); });
  }

 private:
  reactor& reactor_;
  watcher& listener_;
  reactor::timer_id timer_ = 0;
};

}  // namespace pgsled::net
