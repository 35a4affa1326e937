#pragma once
// router_service: the thin driver of the router. Takes envelopes from the hub, feeds the machines
// (control, gatherer, plan_desk, admin_desk), sends what they say, and keeps the timers. Decides
// nothing itself. Life cycle: construct, hand hooks() to app::process::run, destroy.
// Thread rule: everything on the thread that runs `run`; HTTP threads and the shard worker reach
// it by reactor.post().

#include <memory>

#include "common/app/app.hpp"
#include "common/config/config.hpp"

namespace pgsled::router {

class router_service {
 public:
  router_service(app::process&, config::configuration);
  ~router_service();
  app::hooks hooks();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::router
