#pragma once
// The lender's own records; for its two source files only.

#include "services/pooler/pools/lender.hpp"

namespace pgsled::pooler {

struct lender::pool_entry {
  snapshot::server_pool settings;
  std::unique_ptr<pooler::pool> machine;
  net::reactor::timer_id timer = 0;
  std::optional<time_point> armed;
  bool running = false;
  time_point complained;          // last line in the log about a failure
  pool_counters told;             // what the probe has counted already
  std::uint32_t in_phase[phases] = {};
  std::uint64_t waiting = 0, orphans = 0;
  std::uint32_t told_over = 0;    // of what `done` of apply() was told last
};

struct lender::connection {
  lease_id id = 0;
  pool_entry* pool = nullptr;
  dial_target target;             // as it was when opened: a cancel goes the same way
  time_point started;
  std::unique_ptr<server_opening> opening;
  std::unique_ptr<server_connection> live;
  std::unique_ptr<carrier> lane;
  bool relayed = false;
  std::unique_ptr<server_cancel> cancel;
  bool close_after_cancel = false;
  unsigned closing_looks = 0;     // how often it was looked whether the server has gone
  net::reactor::timer_id closing_timer = 0;
  holder_id cancel_for = 0;       // who wants to hear cancel_done
  lease::generation cancel_generation = 0;
};

struct lender::holder {
  holder_link* link = nullptr;
  std::string name;
  bool greeted = false;
  // Told for pools that are not known yet: a holder may have the newer snapshot.
  struct early {
    std::uint32_t waiting = 0;
    std::uint64_t epoch = 0;
  };
  std::map<lease::pool_id, early> early_demand;
  std::map<lease::pool_id, std::uint32_t> orphans;
};

}  // namespace pgsled::pooler
