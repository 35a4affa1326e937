#pragma once
// The replicator process: one loop with the link to the router, the control socket and the
// splitting of COPY, and a thread for the move that is under way (move_service). Life cycle:
// construct, hand hooks() to app::process::run, destroy. Thread rule: hooks say theirs; the rest is
// run()'s thread.

#include <atomic>
#include <memory>
#include <boost/json/fwd.hpp>
#include <string>

#include "common/app/app.hpp"
#include "common/bus/peer.hpp"
#include "common/net/reactor.hpp"
#include "services/replicator/control/server.hpp"
#include "services/replicator/move_service.hpp"
#include "services/replicator/split_server.hpp"

namespace pgsled::replicator {

class replicator_service {
 public:
  explicit replicator_service(app::process&);
  ~replicator_service();
  replicator_service(const replicator_service&) = delete;
  replicator_service& operator=(const replicator_service&) = delete;

  app::hooks hooks();

 private:
  int run();
  result<bool> open_splitting();
  void drain();
  void leave_when_idle();
  std::string hello() const;
  void apply(byte_span json, std::uint64_t epoch);
  void receive(const bus::envelope&);
  void answer_gather(const bus::envelope&);
  boost::json::array start_move(byte_span asked);
  boost::json::array act_on_move(byte_span asked);
  std::string missing() const;  // any thread
  status_report status() const;

  app::process& process_;
  net::reactor loop_;
  net::time_point began_ = net::clock::now();
  std::unique_ptr<bus::peer> router_;
  std::unique_ptr<move_service> moves_;
  std::unique_ptr<control_server> control_;
  std::unique_ptr<split_server> splitting_;
  std::string split_endpoint_, split_key_;
  std::vector<std::string> known_clients_;   // from --curve-dir
  std::chrono::milliseconds shutdown_timeout_{60'000};
  net::time_point drain_until_{};
  std::uint64_t epoch_ = 0;
  // Written by the loop, read by the HTTP thread too.
  std::atomic<bool> connected_{false}, configured_{false}, draining_{false};
};

}  // namespace pgsled::replicator
