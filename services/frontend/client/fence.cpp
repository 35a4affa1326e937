// What waits while rows are moved, or the database goes to other servers.

#include "services/frontend/client/client.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace fe = wire::frontend;

// What this client has under way may be on any shard by now.
void client::fence_raised() {
  if (!endpoint_ || login_ || endpoint_->owners->fence.empty()) return;
  before_fence_ = true;
  before_fence_ = before_fence();
}

bool client::before_fence() {
  if (!before_fence_) return false;
  const bool busy = state_ != state::closed &&
                    (spread_ != nullptr || unit_left_ != 0 || streaming_ != 0 ||
                     (server_ != nullptr && in_transaction()));
  before_fence_ = busy;
  return busy;
}

void client::fence_fell() {
  fenced_since_ = {};
  look_at_fence();
}

void client::look_at_fence() {
  if (state_ != state::fenced) return;
  set_state(state::ready);
  resume();
}

// Its unit has not begun: without a server nothing of it has been sent.
void client::place_again() {
  if (!waits_unbegun()) return;
  if (!endpoint_->sharded && endpoint_->owners->held.empty()) return;
  ask_again();
}

// While rows of the database are moved, a worker that the router has given up may know an old map
// and nothing of a fence. Without the router it runs nothing by key, transactions that are open
// included.
bool client::unseen() const {
  return endpoint_->owners->moving && !worker_.router().present();
}

// Everything of a database waits: transactions that begin, while it is held; all of them, while a
// move to other servers is registered and the router is not heard. True: not now.
bool client::held_back(char type, output& out) {
  const auto& owners = *endpoint_->owners;
  const bool alone = owners.leaving && !worker_.router().present();
  if ((owners.held.empty() && !alone) || skip_to_sync_ || fe::is_copy(type)) return false;
  // A Sync or Flush inside a COPY stands before what the server waits for.
  if (server_ != nullptr && server_->ledger.copying_in()) return false;
  // Behind an error everything up to the Sync is thrown away.
  if (server_ != nullptr && server_->ledger.skipping()) return false;
  // The rest of a batch whose beginning has been let through.
  if (server_ != nullptr && server_->ledger.unsynced() && !alone) return false;
  out.flush(server_);
  if (server_ != nullptr && !server_->ledger.empty()) {
    settle();
    return true;
  }
  const bool open = spread_ != nullptr || (server_ != nullptr && in_transaction());
  before_fence_ = before_fence_ && open;
  if (open && !alone) return false;
  // It may be one of the old servers'.
  if (server_ != nullptr && may_let_go()) let_go();
  wait_at_fence();
  return true;
}

// Whether a unit belongs to a transaction that is older than the fence is known only when the
// server owes nothing.
client::routed client::hold_at_fence(bool fenced) {
  if (!fenced && !before_fence_) {
    fenced_since_ = {};
    return routed::go;
  }
  if (server_ != nullptr && !server_->ledger.empty()) {
    settle();
    return routed::suspended;
  }
  const bool open = spread_ != nullptr || (server_ != nullptr && in_transaction());
  before_fence_ = before_fence_ && open;
  if (!fenced || (before_fence_ && !unseen())) {
    fenced_since_ = {};
    return routed::go;
  }
  wait_at_fence();
  return routed::suspended;
}

void client::wait_at_fence() {
  if (fenced_since_ == net::time_point{}) {
    fenced_since_ = worker_.loop().now();
    worker_.counters().fence_waits.add();
  }
  set_state(state::fenced);
}

}  // namespace pgsled::frontend
