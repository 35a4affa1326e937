#pragma once
// The control socket: a Unix stream, mode 0600, in the run directory. Bounded: 16 connections,
// lines of 64 KiB, and nothing more is read from who does not read its answers. Life cycle:
// construct, start(), destroy (removes the socket file). Thread rule: its reactor's thread.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/result.hpp"
#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "services/replicator/control/protocol.hpp"

namespace pgsled::replicator {

class control_server final : public net::watcher {
 public:
  static constexpr std::size_t max_connections = 16;

  control_server(net::reactor&, std::string path, std::function<status_report()> status,
                 reshard_hooks reshard = {});
  ~control_server();
  control_server(const control_server&) = delete;
  control_server& operator=(const control_server&) = delete;

  result<bool> start();

 private:
  class connection;
  void on_events(std::uint32_t) override;
  void admit(net::unique_fd);
  void tick();

  net::reactor& loop_;
  std::string path_;
  std::function<status_report()> status_;
  reshard_hooks reshard_;
  net::unique_fd listener_;
  net::reactor::timer_id ticking_ = 0;
  std::map<int, std::unique_ptr<connection>> connections_;
};

}  // namespace pgsled::replicator
