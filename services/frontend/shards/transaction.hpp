#pragma once
// shard_transaction: one transaction of a client over several shards. Owns its legs (shard → leased
// server), makes shards join it, tells all of them what concerns the whole transaction, and ends
// it: all shards commit or none does (common/commit decides how; here its messages become bytes).
// Split: transaction.cpp legs, joining, telling; commit.cpp the end.
//
// Who uses it: the client, statement by statement (client/shards.cpp); or whatever runs one
// statement on legs of several shards, inside the client's transaction or in one of its own:
//   1. construct with the session's settings, or use the client's (client::spread_out makes it of
//      the open transaction, or for a statement in autocommit);
//   2. join() the shards. `script` is said to each: that of the client's open transaction, or plain
//      "BEGIN". Connections that the client holds already are adopt()ed before;
//   3. lend() a leg to a server_user of your own, speak to it, park() it when it owes nothing;
//      say wrote() for each shard that it may have changed;
//   4. in autocommit: commit() or rollback(); `done` says what the client is to be told. In an
//      explicit transaction leave it to the client's own COMMIT. After an error the transaction
//      counts as failed until it is rolled back (client: virtual status 'E').
// The calls that take a `done` return at once and call it later, from the loop and never from
// inside themselves; one of them at a time. The transaction may be destroyed in it. Destroying it
// before it has ended gives its servers back broken. A leg lost outside of commit() ends the
// transaction: on_lost is called, once, instead of any `done`.
// Bounds: one wait for a lease at a time, checkout_timeout; the script, 64 KiB; notices kept for
// the client, 64 KiB; what commit() waits for is common/commit's.
// Errors: those of the servers, those of common/commit. Thread rule: the worker's.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/commit/coordinator.hpp"
#include "common/commit/deadlock.hpp"
#include "common/net/reactor.hpp"
#include "services/frontend/endpoint.hpp"
#include "services/frontend/leases/local_pool.hpp"
#include "services/frontend/leases/server.hpp"
#include "services/frontend/shards/conversation.hpp"

namespace pgsled::frontend {

class worker;

class shard_transaction {
 public:
  // Null: it went well.
  using done = std::function<void(const pg_error*)>;
  // How a commit ended: null is COMMIT, with a warning if that is not empty.
  using ended = std::function<void(const pg_error*, const std::string& warning)>;

  // `isolated`: the client's own transaction, which must be READ COMMITTED to have a second shard.
  // `client`: pid of its cancel key, by which the router finds it when it is in a deadlock.
  shard_transaction(worker&, endpoint_ref, std::uint32_t client,
                    session::pair_set_ref settings, bool isolated,
                    std::function<void(const pg_error&)> on_lost);
  ~shard_transaction();
  shard_transaction(const shard_transaction&) = delete;
  shard_transaction& operator=(const shard_transaction&) = delete;

  // Legs.
  // A server that owes nothing and has the session's settings; it is the caller's no longer. One
  // that is in the transaction already is a leg; to any other join() says the script.
  void adopt(server&, bool wrote);
  // Leases of the shards that are none yet, in shard order, with settings and script said to each.
  void join(std::vector<std::uint32_t> shards, std::string script, done);
  bool has(std::uint32_t shard) const { return legs_.contains(shard); }
  std::vector<std::uint32_t> shards() const;
  std::size_t size() const { return legs_.size(); }
  // The leg's server speaks to `to` until park(). Neither may owe anything.
  server& lend(std::uint32_t shard, server_user& to);
  void park(std::uint32_t shard);
  // From the server_lost() of the user it is lent to: the transaction can only be rolled back now.
  // on_lost is not called.
  void lost_lent(std::uint32_t shard);
  // Something has, or may have, changed there. Where nothing says so the server is asked.
  void wrote(std::uint32_t shard);
  // The same for all legs, but of definitions only (DDL). Where nothing else has been written and
  // a server cannot prepare, they commit one after the other, with a warning.
  void defined();
  // PREPARE TRANSACTION would be refused there: why, for people.
  void cannot_prepare(std::uint32_t shard, std::string why);
  // This leg's server is not given back at the end: the client has something on it that no other
  // connection has. take_kept() after the end; null: it is lost, and the session with it.
  void keep(std::uint32_t shard);
  server* take_kept();   // attached to nobody
  bool keeps() const { return keeps_; }
  std::uint32_t kept() const { return kept_shard_; }

  // Says `sql` on all legs at once. `done`'s error is the first shard's that has one.
  void tell(std::string sql, done);
  // Says one text to each leg, one leg after the other in shard order, so that two that do so
  // never wait for each other; ends at the first error.
  void tell_in_order(std::function<std::string(std::uint32_t shard)> text, done);
  // The same with the legs of these shards, with messages of any kind whose answers it hears.
  void converse(std::vector<std::uint32_t> shards, std::shared_ptr<conversation>, done);
  // A leg that has failed; else the first.
  std::uint32_t failed_leg() const;

  // Command tags of the first shard's answer to the last tell, a zero byte between them.
  const std::string& tags() const { return tags_; }
  // Values of parameters as the first leg last reported them; null before there is one.
  const session::pair_set_ref& parameters() const { return parameters_; }
  // The session's settings were changed on all legs.
  void settings_are(const session::pair_set_ref&, bool unknown);

  // `settings`: the session's, once committed.
  void commit(session::pair_set_ref settings, commit_mode, ended);
  void rollback(done);

  // The gate. Transactions that hold leases and wait for more can wait for one another; the worker
  // looks whether those that do are a closed circle, and then has one give up (leases/pool_gate.hpp).
  local_pool* waits_for() const;         // null: for none
  net::time_point waits_since() const { return waits_since_; }
  std::vector<local_pool*> holds() const;
  void give_up(const pg_error&);         // while it waits: fails the join

  bool busy() const { return what_ != work::nothing; }
  // The decision may have been sent: to be carried on even when the client has gone (worker::keep).
  bool must_finish() const {
    return (coordinator_ ? !coordinator_->may_cancel() : one_by_one()) && !over();
  }
  bool one_by_one() const { return what_ == work::one_by_one; }
  bool over() const { return legs_.empty(); }
  // What runs; nothing once the end has begun, which takes a few seconds at most: a cancel that
  // comes late must not meet a decision.
  void cancel();
  // It is the victim of a deadlock over several shards: the cancel that follows is answered 40P01.
  void end_deadlock() { victim_ = true; }
  bool take_victim() { return std::exchange(victim_, false); }
  const commit::mark& marked() const { return mark_; }
  // To be said again after a ROLLBACK TO, which may have ended it.
  std::string mark_sql() const { return commit::mark_sql(mark_); }
  static pg_error deadlock();
  void forget_client();   // it has gone: nobody is told any more

  // What servers have said for the client besides answers (notices), as messages.
  std::string take_asides() { return std::exchange(asides_, {}); }

 private:
  struct leg;
  enum class work {
    nothing, joining, telling, in_order, asking, committing, one_by_one, rolling_back
  };

  void acquire_next();
  void granted(leg&);
  void not_granted(leg&, const pg_error&);
  void leg_done(leg&);
  void leg_lost(leg&, const pg_error& why);
  void next_in_order();
  void decide();
  void commit_next();
  void begin(leg&);
  void perform(std::vector<commit::action>);
  void arm();
  void release(leg&);
  void ask_what_wrote();
  void explain(leg&);
  void drop(leg&);
  void leave_joined();
  bool lacks_settings() const;
  void lose(const pg_error& why);   // the client's end
  void forget(leg&);
  void undo(const pg_error& why);
  void finish(const pg_error*, const std::string& warning = {});
  void later(std::function<void()>);
  std::int64_t now() const;
  bool any_running() const;

  worker& worker_;
  endpoint_ref endpoint_;
  session::pair_set_ref settings_;      // of legs before the transaction
  session::pair_set_ref committed_;     // of legs after COMMIT
  session::pair_set_ref parameters_;
  std::function<void(const pg_error&)> on_lost_;
  std::map<std::uint32_t, std::unique_ptr<leg>> legs_;
  std::vector<std::unique_ptr<leg>> gone_;  // until nothing of theirs is on the stack
  std::vector<std::uint32_t> joining_;  // still without a lease
  std::string script_, tags_, asides_;
  std::shared_ptr<conversation> talk_;  // in_order
  std::vector<std::uint32_t> order_;
  std::size_t at_ = 0;                  // in order_; how many have been asked
  ended ended_;
  std::unique_ptr<commit::coordinator> coordinator_;
  std::unique_ptr<pg_error> error_;
  net::reactor::timer_id timer_ = 0;
  std::unique_ptr<leg> kept_;           // its server has ended the transaction
  std::uint32_t kept_shard_ = 0;
  work what_ = work::nothing;
  commit_mode mode_ = commit_mode::atomic;
  std::string cannot_prepare_;          // which leg, if one cannot: where that is allowed for
  commit::mark mark_;
  net::time_point waits_since_{};
  bool isolated_, keeps_ = false;
  bool defined_ = false, rows_ = false, victim_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace pgsled::frontend
