#pragma once
// move_requests: what replicators ask of the router about moves (docs/formats/envelope.md). Reads a
// request, refuses what cannot be meant as things stand, and hands the rest to the desk.
// Thread rule: the router's loop.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/base/result.hpp"
#include "common/snapshot/move.hpp"
#include "services/router/admin/desk.hpp"
#include "services/router/admin/gatherer.hpp"
#include "services/router/control/control.hpp"
#include "services/router/move_desk.hpp"
#include "services/router/names/service.hpp"

namespace pgsled::router {

class move_requests {
 public:
  struct callbacks {
    std::function<void(const move_desk::asker&, const std::string& json)> answer;
    std::function<void(const move_desk::asker&, const pg_error&)> error;
  };
  // All of them outlive it.
  move_requests(control& truth, move_desk& desk, names_service& names, admin_desk& admin,
                gatherer& questions, callbacks calls)
      : truth_(truth), desk_(desk), names_(names), admin_(admin), questions_(questions),
        calls_(std::move(calls)) {}
  // `number`: of the request, as its answer names it.
  void request(const std::string& from, std::uint64_t number, std::string_view json);

 private:
  void move_cluster(const move_desk::asker&, const snapshot::move_request&);
  void begin_cluster(const move_desk::asker&, const snapshot::move_request&, std::int64_t now);
  void tell_move(const move_desk::asker&, const char* what, const std::string& job,
                 const std::string& act);
  void list_moves(const move_desk::asker&);

  control& truth_;
  move_desk& desk_;
  names_service& names_;
  admin_desk& admin_;
  gatherer& questions_;
  callbacks calls_;
};

}  // namespace pgsled::router
