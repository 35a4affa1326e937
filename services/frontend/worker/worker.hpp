#pragma once
// worker: one thread of the frontend. Has its own reactor, listening sockets, link to the router,
// lines to the poolers, leases, caches and clients, and shares nothing with the others but the
// count of clients. Life cycle: construct, run() on its thread, drain() from any thread.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/app/app.hpp"
#include "common/bus/hub.hpp"
#include "common/bus/peer.hpp"
#include "common/lease/messages.hpp"
#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "common/net/tls.hpp"
#include "common/session/settings.hpp"
#include "common/snapshot/snapshot.hpp"
#include "common/sql/shape.hpp"
#include "services/frontend/copy/split_line.hpp"
#include "services/frontend/endpoint.hpp"
#include "services/frontend/leases/lease_channel.hpp"
#include "services/frontend/leases/local_pool.hpp"
#include "services/frontend/leases/pool_gate.hpp"
#include "services/frontend/probe.hpp"
#include "services/frontend/statements/plans.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

class client;
class shard_transaction;
class worker;

// Shared by the workers of one process.
struct process_shared {
  std::vector<worker*> workers;  // all of them, before the first one runs
  std::atomic<std::int64_t> clients{0};
  std::shared_ptr<bus::context> bus;
  std::string boot;
  std::string http;
  bus::curve_keys curve;
  app::options options;
  std::function<void()> on_shutdown_command;
  std::function<std::string(bool openmetrics)> metrics_text;
};

class worker {
 public:
  worker(process_shared&, unsigned number, snapshot::frontend first);
  ~worker();
  // Returns when drained. Listening has begun when this is called.
  void run();
  result<bool> listen();
  void drain();  // any thread

  // For the parts of a worker.
  net::reactor& loop() { return loop_; }
  probe& counters() { return probe_; }
  const probe& counters() const { return probe_; }
  session::pair_table& pairs() { return pairs_; }
  statement_cache& statements() { return statements_; }
  plan_cache& plans() { return plans_; }
  bus::peer& router() { return *peer_; }
  pool_gate& gate() { return gate_; }
  const snapshot::frontend_settings& settings() const { return snapshot_.settings; }
  const snapshot::frontend& snapshot() const { return snapshot_; }
  const std::string& login_seed() const { return snapshot_.login_seed; }
  const std::shared_ptr<net::tls_context>& tls() const { return tls_; }
  // A certificate is set and could not be loaded. Any thread.
  bool lacks_tls() const { return lacks_tls_; }
  process_shared& shared() { return shared_; }
  std::uint64_t epoch() const { return snapshot_.epoch; }
  std::uint64_t map_epoch(const std::string& database) const;
  bool draining() const { return draining_; }
  bool configured() const { return snapshot_.holder != 0; }
  std::span<std::uint8_t> read_buffer() { return {read_buffer_.get(), read_buffer_size}; }
  std::span<std::uint8_t> message_buffer() {
    return {message_buffer_.get(), lease::max_message_bytes};
  }
  std::string& server_out() { return server_out_; }
  std::string& client_out() { return client_out_; }
  sql::shape& shape() { return shape_; }
  std::string& plan_key() { return plan_key_; }
  // Which text shape() was last made of; valid within one call into a client only.
  void set_shaped(std::string_view text) { shaped_ = text; }
  bool is_shaped(std::string_view text) const {
    return shaped_.data() == text.data() && shaped_.size() == text.size();
  }

  // Runs before this turn of the loop ends, not on top of the caller.
  void schedule(std::function<void()> task);
  void run_scheduled();

  endpoint_ref find_endpoint(const std::string& user, const std::string& database) const;
  endpoint_ref any_endpoint_of(const std::string& user) const;
  bool knows_user(const std::string& user) const { return any_endpoint_of(user) != nullptr; }
  std::string default_auth() const;
  bool knows_database(const std::string& database) const;

  // Clients.
  std::uint32_t add_slot(client*);     // its number in cancel keys; ~0: none left
  void remove_slot(std::uint32_t slot);
  std::uint32_t cancel_pid(std::uint32_t slot) const { return snapshot_.holder << 20 | slot; }
  void cancel(std::uint32_t pid, std::string_view secret, bool forwarded);
  void client_gone(client*);
  // A commit whose client has gone, until it is over.
  void carry_on(std::unique_ptr<shard_transaction>);
  std::uint64_t next_serial() { return ++serials_; }
  client* client_of(std::uint32_t pid) const;  // null when it has gone

  // Leases.
  void tell_pooler(const std::string& pooler, lease::message message);
  // `stream`: of what a grant lends.
  void from_pooler(const std::string& pooler, lease::message&&,
                   std::unique_ptr<server_stream> stream);
  lease::hello greeting(const std::string& pooler) const;
  void pooler_up();
  // `sockets_live`: what it has passed on goes on without it.
  void pooler_down(const std::string& pooler, bool sockets_live = true);
  pg_error why_no_lease(const local_pool&) const;
  // A replicator for one more COPY; null: none can be reached now.
  split_line* splitter() const;
  const std::unordered_map<client*, std::unique_ptr<client>>& clients() const { return clients_; }
  const std::unordered_map<std::uint32_t, std::shared_ptr<local_pool>>& pools() const {
    return pools_;
  }
  unsigned number() const { return number_; }
  const std::string& instance() const { return instance_; }

  // ParameterStatus of a server connection on which these settings are applied: told to clients
  // at login without a server.
  session::pair_set_ref known_parameters(const local_pool*, const session::pair_set_ref&) const;
  void learn_parameters(const local_pool*, const session::pair_set_ref&, session::pair_set_ref);

 private:
  static constexpr std::size_t read_buffer_size = 64 * 1024;
  class listener;

  void apply(snapshot::frontend next);
  void apply_poolers();
  void keep_forgotten(std::unique_ptr<lease_line>);
  bool has_leases_of(const std::string& pooler) const;
  void apply_replicators();
  void rebuild_endpoints();
  void acknowledge();
  void load_tls();
  void accepted(net::unique_fd fd, bool local);
  void accepted_local(net::unique_fd fd);
  result<bool> listen_locally();
  void from_router(const bus::envelope&);
  void end_deadlock(std::string_view json);
  std::string hello() const;
  void tick();
  void check_drained();

  process_shared& shared_;
  unsigned number_;
  std::string instance_;
  net::reactor loop_;
  probe probe_;
  std::vector<std::shared_ptr<void>> series_;
  session::pair_table pairs_;
  statement_cache statements_{probe_};
  plan_cache plans_{probe_};
  snapshot::frontend snapshot_;
  std::shared_ptr<net::tls_context> tls_;
  std::atomic<bool> lacks_tls_{false};
  std::unique_ptr<bus::peer> peer_;
  std::vector<std::unique_ptr<listener>> listeners_;
  std::unordered_map<std::string, endpoint_ref> endpoints_;
  std::unordered_map<std::string, std::shared_ptr<ownership>> owners_;  // by database
  std::vector<std::string> fences_, drained_;  // that are up; those with nothing before them here
  std::uint64_t acknowledged_ = 0;
  net::reactor::timer_id fence_timer_ = 0;
  std::unordered_map<std::uint32_t, std::shared_ptr<local_pool>> pools_;
  std::vector<std::shared_ptr<local_pool>> withdrawn_pools_;
  std::unordered_map<std::string, std::unique_ptr<lease_line>> lines_;
  std::unordered_set<std::string> forgotten_;  // of lines_, those the router does not know
  std::unordered_map<std::string, std::unique_ptr<split_line>> split_lines_;
  std::vector<std::unique_ptr<split_line>> leaving_splits_;  // drain; until their COPYs are over
  struct learned {
    const local_pool* pool;
    session::pair_set_ref settings, parameters;
  };
  std::vector<learned> learned_;
  pool_gate gate_{probe_};
  std::vector<std::unique_ptr<shard_transaction>> finishing_;
  std::unordered_map<client*, std::unique_ptr<client>> clients_;
  std::vector<client*> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::unique_ptr<std::uint8_t[]> read_buffer_, message_buffer_;
  std::string server_out_, client_out_, plan_key_;
  sql::shape shape_;
  std::string_view shaped_;
  std::vector<std::function<void()>> scheduled_;
  std::uint64_t serials_ = 0;
  std::size_t tick_number_ = 0, next_local_ = 0;
  bool running_scheduled_ = false, draining_ = false;
  bool wants_local_ = false;  // another frontend of this machine has the Unix socket
  net::time_point next_local_try_{};
  net::time_point drain_deadline_{};
};

}  // namespace pgsled::frontend
