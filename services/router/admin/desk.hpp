#pragma once
// admin_desk: answers admin requests: reads the command, asks who has to be asked, makes the
// table. Sending, reloading and shutting down are the driver's, through the callbacks.
// Thread rule: one thread.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "services/router/admin/gatherer.hpp"
#include "services/router/admin/sql.hpp"
#include "services/router/admin/stats_window.hpp"
#include "services/router/admin/table.hpp"
#include "services/router/admin/views.hpp"
#include "services/router/control/control.hpp"

namespace pgsled::router {

class admin_desk {
 public:
  static constexpr std::int64_t gather_wait = 500;   // ms
  struct callbacks {
    std::function<void(const std::string& to, std::uint64_t request, const std::string& json)>
        answer;
    std::function<void(const std::string& to, std::uint64_t request, const pg_error&)> error;
    // `done` hears the mistakes, or who had not acknowledged in time.
    std::function<void(std::function<void(std::string, std::vector<std::string>)> done)> reload;
    std::function<void()> shutdown;
    std::function<router_facts()> self;
    std::function<std::vector<open_transaction>()> transactions;
    std::function<std::int64_t()> now;
  };
  admin_desk(const control& truth, gatherer& questions, callbacks calls)
      : truth_(truth), questions_(questions), calls_(std::move(calls)) {}

  // Keeps the averages of SHOW STATS up to date.
  void tick(std::int64_t now);
  void request(const std::string& from, std::uint64_t request, const std::string& sql);
  // Whichever replicator runs the move hears `what` (abort_move, cutover_move), and decides what
  // that means for it; `act`: cutover, roll_back, finish, of cutover_move, or empty: whichever fits.
  // `done`, later, why it did not come to that.
  void tell_move(const char* what, const std::string& job, const std::string& act,
                 std::function<void(std::optional<pg_error>)> done);

 private:
  struct asker {
    std::string name;
    std::uint64_t request = 0;
  };
  void show(const asker&, const admin_statement&);
  void show_gathered(const asker&, const admin_statement&, std::vector<std::string> services);
  void reload(const asker&, const std::string& tag);
  void reshard(const asker&, const admin_statement&);
  struct move_order {                    // for one of these replicators
    std::string json, tag;
    bool own_names = false;
    std::vector<std::string> replicators;
  };
  void start_move(const asker&, move_order);
  void follow(const asker&, const admin_statement&);
  void give_task(const asker&, const std::string& job, const std::string& tag, bool own_names);
  void tell_task(const asker&, const char* what, const char* tag, const std::string& id);
  void give(const asker&, admin_table, const std::vector<std::string>& columns);

  const control& truth_;
  gatherer& questions_;
  callbacks calls_;
  stats_window window_;
};

// Live members of these services, draining ones too: they still have clients and connections.
std::vector<std::string> members_of(const control&, const std::vector<std::string>& services);

}  // namespace pgsled::router
