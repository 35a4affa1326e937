// COPY on several shards as its client sees it: when it may run, and in whose transaction.

#include "services/frontend/client/client.hpp"
#include "services/frontend/copy/shard_copy.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/statements/unit.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

client::routed client::route_copy(const unit& now, byte_span bytes, const plan_ref& planned,
                                  std::string_view sql) {
  const auto refused = [&](pg_error why) {
    refuse_unit(now, why);
    return routed::done;
  };
  const bool bound = pinned_ || endpoint_->mode == pool_mode::session;
  if (server_ != nullptr) {
    if (!server_->ledger.empty()) {
      unit_left_ = 0;
      settle();
      return routed::suspended;
    }
    if (!spread_ && server_->quiet() && movable() && !bound) {
      let_go();
    } else if (!spread_ && movable() && !bound) {
      return settle_elsewhere();
    } else if (server_->ledger.unsynced() && (in_block() || light_)) {
      return sync_first();
    }
  }
  const bool shares = server_ != nullptr && server_->ledger.unsynced();
  if (shares || (!now.simple && now.executes != 1)) {
    return refused({"0A000", "COPY on several shards cannot share a batch with other statements",
                    "Bind and execute it in a batch of its own, with Sync before and behind it.",
                    {}});
  }
  if (status() == 'E') return refused(aborted_transaction());
  const bool alone = status() == 'I' && !spread_;
  if (pg_error why; !spread_ && !spread_out(alone, why)) return refused(std::move(why));
  park();
  ++counts_.queries;
  worker_.counters().queries.add();
  if (now.simple) unnamed_ = nullptr;   // as with any Query
  set_state(state::copying);
  copy_ = std::make_unique<shard_copy>(worker_, *this);
  copy_->run(std::string(as_text(bytes.first(now.bytes))), std::string(sql), planned, alone);
  return routed::done;
}

}  // namespace pgsled::frontend
