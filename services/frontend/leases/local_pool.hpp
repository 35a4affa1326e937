#pragma once
// local_pool: a worker's leases of one pool and the clients that wait for one. Lends in order of
// arrival; asks the poolers for more while somebody waits; gives back what is recalled, retired,
// broken or long idle. Thread rule: its worker's.

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/snapshot/snapshot.hpp"
#include "services/frontend/leases/server.hpp"

namespace pgsled::frontend {

class worker;

// Somebody who waits for a lease.
class lease_waiter {
 public:
  virtual void granted(server& lent) = 0;   // not attached yet
  virtual void not_granted(const pg_error& why) = 0;

 protected:
  ~lease_waiter() = default;
};

class local_pool : public std::enable_shared_from_this<local_pool> {
 public:
  local_pool(worker&, snapshot::pool description);
  ~local_pool();

  void update(snapshot::pool description);
  void withdraw();  // the pool is gone from the configuration
  const snapshot::pool& description() const { return description_; }
  std::string where() const { return description_.host + ":" + std::to_string(description_.port); }

  // A lease at once, or null and the waiter stands in the queue: before all who are not, if it
  // holds leases already that others may wait for.
  server* take(lease_waiter* waiter, bool holds_others = false);
  void forget(lease_waiter* waiter);
  // The user is done with it. The condition is found out here.
  void release(server& lent);

  // From the lease channel.
  void add(const std::string& pooler, lease::grant&&, std::unique_ptr<server_stream>);
  void recall(const std::string& pooler, std::uint32_t count);
  void failed(const pg_error& why);
  void cancel_done(server& lent);
  void pooler_gone(const std::string& pooler, bool sockets_live);
  // The router has given it up, but it lives: what is in use may be used to the end.
  void pooler_forgotten(const std::string& pooler);
  void pooler_heard(const std::string& pooler);   // again
  void channel_up();
  void remove(server& lent);  // dead: tell the pooler, delete
  server* find(const std::string& pooler, lease::lease_id id);
  void retire(server& lent);

  void tick(net::time_point now);
  std::uint32_t orphans_of(const std::string& pooler) const;
  bool has_leases_of(const std::string& pooler) const;  // orphans do not count

  // Other holders wait for leases that are here.
  bool recalled() const {
    return std::any_of(recalled_.begin(), recalled_.end(),
                       [](const auto& one) { return one.second > 0; });
  }
  std::size_t waiting() const { return waiters_.size(); }
  bool withdrawn() const { return withdrawn_; }   // not of the newest configuration
  std::size_t leases() const { return servers_.size(); }
  std::size_t idle() const { return idle_.size(); }
  std::size_t idle_in_transaction() const;
  net::duration longest_wait(net::time_point now) const;

  struct totals {
    std::uint64_t transactions = 0, queries = 0, received = 0, sent = 0, assignments = 0;
    std::uint64_t wait_us = 0, query_us = 0, transaction_us = 0, errors = 0, rollbacks = 0;
    std::uint64_t parses = 0, binds = 0, closes = 0, reads = 0, writes = 0;
  };
  totals stats;

 private:
  struct waiter {
    lease_waiter* who;
    net::time_point since;
    bool holds_others;
  };
  std::deque<waiter>::iterator first_without();
  void hand_back(server& lent, lease::condition);
  void next_or_idle(server& lent);
  void tell_demand();
  void erase(server& lent);
  void count();

  worker& worker_;
  snapshot::pool description_;
  std::vector<std::unique_ptr<server>> servers_;
  std::vector<server*> idle_;  // last used at the back
  std::deque<waiter> waiters_;
  std::unordered_map<std::string, std::uint32_t> recalled_;  // by pooler: still to go back
  std::uint32_t told_demand_ = 0;
  net::time_point told_at_{};
  bool withdrawn_ = false;
  std::size_t counted_ = 0, counted_idle_ = 0;   // of servers_ and idle_ in the metrics
};

inline constexpr std::string_view server_statement_prefix = "__pgsled_";
std::string server_statement_name(const lease::statement_id&);
lease::statement_id statement_id_of(std::string_view server_name);

}  // namespace pgsled::frontend
