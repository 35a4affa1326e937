#pragma once
// lease_channel: a worker's SOCK_SEQPACKET connection to a pooler on this host, perhaps in another
// container. Connects again after the pooler has died (50 ms, doubling to 1 s). Thread rule: its
// worker's.

#include <deque>
#include <string>

#include "common/lease/messages.hpp"
#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "common/snapshot/snapshot.hpp"

namespace pgsled::frontend {

class worker;

// Whether descriptors can be passed: on this host; and between containers of this machine that
// share the folder of sockets.
bool within_reach(const snapshot::pooler_ref&);
// Whether what it has passed on outlives it. A container's network goes with it, without a word to
// those whose sockets are in it.
bool lives_on(const snapshot::pooler_ref&);

// What carries lease messages to one pooler: this, or the relay lane.
class lease_line {
 public:
  virtual ~lease_line() = default;
  virtual void tell(const lease::message&) = 0;
  virtual const snapshot::pooler_ref& pooler() const = 0;
  // What the router says of the same pooler now. False: it is at another address, which needs
  // another line.
  virtual bool adopt(const snapshot::pooler_ref&) = 0;
  // Whether its process is known to live, whatever the router has heard of it.
  virtual bool lives() const = 0;
};

class lease_channel final : public lease_line, public net::watcher {
 public:
  lease_channel(worker&, snapshot::pooler_ref pooler);
  ~lease_channel() override;
  void tell(const lease::message&) override;
  const snapshot::pooler_ref& pooler() const override { return pooler_; }
  bool adopt(const snapshot::pooler_ref&) override;
  // The kernel ends the connection with the process.
  bool lives() const override { return static_cast<bool>(fd_); }

 private:
  static constexpr std::size_t max_queued = 4096;  // messages; beyond it the line is dropped
  void connect();
  void retry();
  void down();
  void on_events(std::uint32_t events) override;
  bool receive_one();
  bool flush();

  worker& worker_;
  snapshot::pooler_ref pooler_;
  net::unique_fd fd_;
  std::deque<std::string> queue_;
  net::reactor::timer_id timer_ = 0;
  std::chrono::milliseconds delay_{50};
};

}  // namespace pgsled::frontend
