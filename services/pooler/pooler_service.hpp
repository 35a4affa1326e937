#pragma once
// pooler_service: the process around the lender: link to the router, the lanes, views, drain.
// Decides nothing itself. Life cycle: construct, hand hooks() to app::process::run, destroy.
// Thread rule: everything on the thread that runs `run`; signal and HTTP threads use atomics and
// reactor.post().

#include <memory>

#include "common/app/app.hpp"

namespace pgsled::pooler {

class pooler_service {
 public:
  explicit pooler_service(app::process&);
  ~pooler_service();
  app::hooks hooks();

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::pooler
