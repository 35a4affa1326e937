// What a new snapshot or a drain means for a client: other shards, other servers, the end.

#include <algorithm>

#include "services/frontend/client/client.hpp"
#include "services/frontend/client/login.hpp"
#include "services/frontend/client/output.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/query_steps.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

void client::drain() {
  draining_ = true;
  if (state_ == state::ready && server_ == nullptr && virtual_status_ == 'I' && pending_.empty()) {
    ends_with_drain();
  } else if (login_) {
    close("shutting down");
  }
}

// Who reads slowly gets the rest first; it is looked at again (check_timeouts).
bool client::ends_with_drain() {
  if (!draining_ || transport_.blocked()) return false;
  end(pg_error{"57P01", "terminating connection due to administrator command", {}, {}});
  return true;
}

void client::leave_login_queue() {
  if (!login_ || !login_->getting_parameters || server_ != nullptr || !endpoint_) return;
  leave_pools();
}

void client::leave_pools() {
  for (auto* pool : endpoint_->pools) {
    if (pool != nullptr) pool->forget(this);
  }
}

// For a connection, with nothing of it sent to a server.
bool client::waits_unbegun() const {
  return state_ == state::waiting && !login_ && server_ == nullptr && !spread_;
}

// Where its database or its user is gone it ends then.
void client::leave_queue(const std::set<std::uint32_t>& pools) {
  if (!waits_unbegun()) return;
  const auto stays = [&](const local_pool* pool) {
    return pool == nullptr || pools.contains(pool->description().id);
  };
  if (std::all_of(endpoint_->pools.begin(), endpoint_->pools.end(), stays)) return;
  ask_again();
}

void client::ask_again() {
  leave_pools();
  unit_left_ = 0;
  set_state(state::ready);
  resume();
}

void client::enter_login_queue() {
  if (!login_ || !login_->getting_parameters || server_ != nullptr || !endpoint_) return;
  if (state_ == state::closed) return;
  worker_.schedule([this] {
    if (login_ && login_->getting_parameters && server_ == nullptr) get_parameters();
  });
}

void client::servers_changed() {
  if (!endpoint_ || server_ == nullptr || spread_ || !server_->pool().withdrawn()) return;
  const bool others = endpoint_->database.served != endpoint_->owners->served;
  const auto fresh = worker_.find_endpoint(endpoint_->user.name, endpoint_->database.name);
  const bool closed = fresh && fresh->database.resharding_only;
  // What a log-in learns of the old servers does no harm; a connection that it keeps would.
  if ((!others && !closed) || (login_ && endpoint_->mode != pool_mode::session)) return;
  // Without a connection of its own it goes when its transaction has ended.
  if (!pinned_ && endpoint_->mode != pool_mode::session && !others) return;
  if (closed) return end(only_for_resharding(endpoint_->database.name));
  end(pg_error{"57P01",
               "terminating connection: database \"" + endpoint_->database.name +
                   "\" has been handed over to other servers",
               "Connect again.", {}});
}

// Of a session whose endpoint is stale. Looked at once for each snapshot, and when it is pinned.
bool client::shards_changed() {
  if (shards_looked_at_ == worker_.epoch()) return shards_changed_;
  shards_looked_at_ = worker_.epoch();
  const auto fresh = worker_.find_endpoint(endpoint_->user.name, endpoint_->database.name);
  shards_changed_ = fresh && fresh->database.shards != endpoint_->database.shards;
  if (fresh && fresh->sharded && is_kept()) {
    const auto serves = [shard = server_->pool().description().shard](const endpoint& one) {
      return std::find(one.serving.begin(), one.serving.end(), shard) != one.serving.end();
    };
    shards_changed_ = shards_changed_ || (serves(*endpoint_) && !serves(*fresh));
  }
  return shards_changed_;
}

bool client::is_kept() const {
  return server_ != nullptr && (pinned_ || endpoint_->mode == pool_mode::session);
}

// Where the rows belong is another question now: what has begun is finished as it has begun, and
// nothing else runs by what the session knows. True: not now.
bool client::leaves_old_shards(output& out) {
  if (server_ == nullptr || spread_ || skip_to_sync_ || !shards_changed()) return false;
  if (server_->ledger.copying_in() || server_->ledger.unsynced()) return false;
  out.flush(server_);
  if (!server_->ledger.empty()) {
    settle();
    return true;
  }
  if (!server_->quiet()) return false;
  if (may_let_go()) {
    let_go();
    return false;
  }
  end_with_its_shards();
  return true;
}

void client::end_with_its_shards() {
  end(pg_error{"57P01",
               "terminating connection: the shards of database \"" + endpoint_->database.name +
                   "\" have changed, and the session is bound to a connection of before",
               "Connect again.", {}});
}

void client::snapshot_changed() {
  if (login_ && login_->waits_for_router) {
    login_->waits_for_router = false;
    resume();
    return;
  }
  if (!endpoint_ || !endpoint_->stale || login_) return;
  if (state_ != state::ready || spread_) return;
  if (is_kept() && server_->quiet() && unit_left_ == 0 && streaming_ == 0 && !steps_ &&
      !transport_.blocked() && shards_changed()) {
    return end_with_its_shards();
  }
  if (server_ != nullptr) return;
  auto fresh = worker_.find_endpoint(endpoint_->user.name, endpoint_->database.name);
  if (!fresh) {
    end(pg_error{"57P01", "user \"" + endpoint_->user.name + "\" of database \"" +
                              endpoint_->database.name + "\" was removed from the configuration",
                 {}, {}});
    return;
  }
  if (fresh->database.resharding_only) return end(only_for_resharding(fresh->database.name));
  if (!fresh->planned && endpoint_->planned) {
    // What is routed as a whole is finished, or fails, as that.
    if (virtual_status_ == 'E') return;
    if (batch_) {
      return end(pg_error{"57P01", "the shards of database \"" + fresh->database.name +
                                       "\" have changed in the middle of a batch", {}, {}});
    }
    unit_shard_ = 0;
  }
  answers_.clear();   // plans of the servers of then
  endpoint_ = std::move(fresh);
}

}  // namespace pgsled::frontend
