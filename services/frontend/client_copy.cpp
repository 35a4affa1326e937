// COPY on several shards as its client sees it: when it may run, and in whose transaction.

#include "services/frontend/client.hpp"
#include "services/frontend/shard_copy.hpp"
#include "services/frontend/shard_transaction.hpp"
#include "services/frontend/unit.hpp"
#include "services/frontend/worker.hpp"

namespace pgsled::frontend {

client::routed client::route_copy(const unit& now, byte_span bytes, const plan_ref& planned,
                                  std::string_view sql) {
  const auto refused = [&](const char* why, const char* hint) {
    if (server_ != nullptr && !server_->ledger.empty()) {
      // Its replies come first.
      unit_left_ = 0;
      settle();
      return routed::suspended;
    }
    refuse_unit(now, pg_error{"0A000", why, hint, {}});
    return routed::done;
  };
  if (!now.simple && now.executes != 1) {
    return refused("COPY on several shards cannot share a batch with other statements",
                   "Bind and execute it in a batch of its own, with Sync before and behind it.");
  }
  if (broadcast_) {
    return refused("in a transaction that changes all shards only statements for all shards are "
                   "possible",
                   "Run COPY in a transaction of its own.");
  }
  if (endpoint_->mode == pool_mode::session) {
    return refused("in session pooling mode COPY on several shards is not possible",
                   "Use pooler_mode = \"transaction\".");
  }
  if (server_ != nullptr) {
    if (!spread_ && server_->quiet() && movable()) {
      let_go();
    } else if (!server_->ledger.empty()) {
      unit_left_ = 0;
      settle();
      return routed::suspended;
    } else if (!spread_ && movable()) {
      return settle_elsewhere();
    } else if (status() == 'I') {
      return refused("COPY on several shards cannot share a batch with other statements",
                     "Send Sync before it.");
    } else if (status() == 'T' && server_->ledger.unsynced()) {
      return sync_first();
    }
  }
  if (status() == 'E') {
    refuse_unit(now,
                pg_error{"25P02",
                         "current transaction is aborted, commands ignored until end of "
                         "transaction block",
                         {},
                         {}});
    return routed::done;
  }
  if (status() == 'I') return copy_on_shards(now, bytes, planned, sql, true);
  if (!spread_ && !script_.complete()) {
    return refused("COPY on several shards is not possible in this transaction: how it has begun "
                   "cannot be said again on other shards",
                   "Begin with BEGIN as the first statement of its message, without AND CHAIN, "
                   "RESET or set_config() of a computed value before COPY.");
  }
  return copy_on_shards(now, bytes, planned, sql, false);
}

client::routed client::copy_on_shards(const unit& now, byte_span bytes, const plan_ref& planned,
                                      std::string_view sql, bool alone) {
  if (spread_) {
    park();
  } else if (alone) {
    spread_ = std::make_unique<shard_transaction>(
        worker_, endpoint_, shadow_->current(), false,
        [this](const pg_error& why) { copy_->transaction_lost(why); });
  } else {
    spread_ = std::make_unique<shard_transaction>(worker_, endpoint_, script_.settings(), true,
                                                  [this](const pg_error& why) {
                                                    server_ = nullptr;
                                                    end(why);
                                                  });
    if (server_ != nullptr) {
      virtual_status_ = status();
      const auto first = server_->pool().description().shard;
      spread_->adopt(*std::exchange(server_, nullptr), wrote_);
      if (pinned_) bind_session(first);
    }
  }
  ++counts_.queries;
  worker_.counters().queries.add();
  set_state(state::copying);
  copy_ = std::make_unique<shard_copy>(worker_, *this);
  copy_->run(std::string(as_text(bytes.first(now.bytes))), std::string(sql), planned, alone);
  return routed::done;
}

}  // namespace pgsled::frontend
