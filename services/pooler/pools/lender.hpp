#pragma once
// lender: the driver of all pools. Carries out what the pools decide, owns the server connections,
// and speaks with the holders through their links. Knows neither router nor listener. Life cycle:
// construct, apply() snapshots, attach() holders, drain(), destroy. Thread rule: the reactor's.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>

#include "common/net/graveyard.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/pooler/lanes/lane.hpp"
#include "services/pooler/pools/pool.hpp"
#include "services/pooler/probe.hpp"
#include "services/pooler/servers/server_connection.hpp"

namespace pgsled::pooler {

class lender {
 public:
  // `server_sockets`: see resolver.
  lender(net::reactor&, probe&, std::string instance, std::uint64_t boot,
         std::string server_sockets = {});
  ~lender();
  lender(const lender&) = delete;
  lender& operator=(const lender&) = delete;

  // Of some pools: id and a number of connections.
  using counts = std::vector<std::pair<lease::pool_id, std::uint32_t>>;
  // A newer snapshot, applied as a difference. `done` is called when no pool has more than its
  // budget any more. If that takes longer than two seconds it is called then as well, and each
  // time the numbers change, with those that have more: leases may be in long transactions. Not
  // called any more once the next snapshot has come.
  void apply(const snapshot::pooler&, std::function<void(counts over)> done);
  // While there are fences: the holders that may not have leases have none any more, and their
  // connections have ended.
  bool expelled() const { return expelled_.empty(); }
  // Of each pool its budget, or the connections it has (orphans too) when those are more.
  counts held() const;
  void drain();  // lends nothing more and takes everything back; over when empty()
  bool empty() const;

  // Holders. The link is the caller's and outlives the holder: until gone() or link.end().
  holder_id attach(holder_link&);
  void receive(holder_id, lease::message&&);
  void gone(holder_id);  // the channel has ended; link.end() is not called
  void refuse(holder_id, const std::string& why);  // broken messages: link.end() is called

  struct connection_view {
    const snapshot::server_pool* pool;
    pooler::pool::view state;
    std::string holder;
    std::uint32_t pid;
    bool encrypted;
    const char* lane;
    std::size_t statements;
  };
  struct pool_view {
    const snapshot::server_pool* pool;
    const pooler::pool* machine;
  };
  std::vector<connection_view> connections() const;
  std::vector<pool_view> pools() const;

 private:
  struct pool_entry;
  struct connection;
  struct holder;

  // One for each action of the pool.
  void carry_out(pool_entry&, open_connection&);
  void carry_out(pool_entry&, check_connection&);
  void carry_out(pool_entry&, clean_connection&);
  void carry_out(pool_entry&, lend_connection&);
  void carry_out(pool_entry&, recall_leases&);
  void carry_out(pool_entry&, retire_lease&);
  void carry_out(pool_entry&, close_connection&);
  void carry_out(pool_entry&, tell_failure&);
  void carry_out(pool_entry&, drop_holder&);

  // Messages of holders.
  void hear(holder_id, lease::hello&);
  void hear(holder_id, lease::demand&);
  void hear(holder_id, lease::give_back&);
  void hear(holder_id, lease::recall_ack&);
  void hear(holder_id, lease::cancel&);
  void hear(holder_id, lease::orphans_left&);
  template <class Other>
  void hear(holder_id, Other&);  // what only a pooler may say

  void run(pool_entry&);  // carries out until nothing is left, then sets the timer
  void arm(pool_entry&);
  void count(pool_entry&);
  void connected(lease_id, result<opened>);
  void lost(lease_id, const std::string& why);
  void ran(lease_id, bool good);
  void start_cancel(connection&);
  void cancelled(lease_id, bool sure);
  void close_when_gone(connection&);
  void await_end(connection&, time_point until, milliseconds pause);
  void finish_close(connection&);
  void give_to(holder_id, const lease::message&, int fd = -1);
  void lose(holder_id, const std::string& why);
  void forget(holder_id);
  void remove_drained();
  void maybe_settled();
  static std::uint32_t over(const pool_entry&);  // what it has, when more than its budget; else 0
  void announce(pool_entry&);
  bool allowed(const std::string& name) const;
  void expel(const snapshot::pooler&);
  void use_settings(const snapshot::pooler_settings&);
  pool_limits limits_of(const snapshot::server_pool&) const;
  dial_target target_of(const snapshot::server_pool&) const;
  connection* find(lease_id);

  net::reactor& reactor_;
  probe& probe_;
  std::string instance_;
  std::uint64_t boot_;
  snapshot::pooler_settings settings_;
  std::shared_ptr<net::tls_context> tls_;
  std::string tls_error_;
  lease_id last_id_ = 0;
  holder_id last_holder_ = 0;
  bool draining_ = false;
  std::map<lease::pool_id, std::unique_ptr<pool_entry>> pools_;
  std::unordered_map<lease_id, std::unique_ptr<connection>> connections_;
  std::map<holder_id, holder> holders_;
  std::uint64_t epoch_ = 0;
  std::function<void(counts)> settled_;
  bool fenced_ = false;
  std::set<std::string> allowed_;       // while fenced_: holders that may have leases
  std::set<lease_id> expelled_;         // connections of others, until they have ended
  bool settling_long_ = false;
  net::reactor::timer_id settle_timer_ = 0;
  net::graveyard graveyard_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
  resolver resolver_;
};

}  // namespace pgsled::pooler
