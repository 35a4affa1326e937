#pragma once
// server: one leased server connection, from grant to give-back. Reads the socket, lets the ledger
// say what belongs to the client, and keeps what travels with the lease. Owned by its local_pool.
// Thread rule: its worker's.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "common/lease/messages.hpp"
#include "common/net/reactor.hpp"
#include "common/session/ledger.hpp"
#include "common/session/settings.hpp"
#include "services/frontend/leases/present.hpp"
#include "services/frontend/leases/server_stream.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

class worker;
class local_pool;
class server;

// Makes the transaction of a connection fail, where what was refused is none of the server's. It
// must not get as far as a portal: of a Query that fails while it runs in a transaction block
// PostgreSQL (seen in 15.18) keeps the unnamed portal, and reads freed memory when it is executed.
inline constexpr std::string_view failing_statement = "__pgsled_refused_statement";

// Who uses a server connection at the moment: a client, or a statement that runs on all shards.
class server_user {
 public:
  // Bytes for the client; valid during the call.
  virtual void from_server(byte_span bytes) = 0;
  virtual void statement_done(const sql::statement* done, std::string_view tag, bool proxy) = 0;
  virtual void server_error(byte_span body, bool proxy) = 0;
  virtual bool rewrite_error(const session::entry*, byte_span, std::string&) { return false; }
  virtual void entry_dropped(const session::entry&) = 0;
  virtual void server_parameter(std::string_view name, std::string_view value, bool proxy) = 0;
  virtual void server_ready(char status, bool proxy) = 0;
  // All that was read has been passed on; the user may let go of the server now.
  virtual void server_read_done() = 0;
  // The connection is gone; the server object is deleted after this call.
  virtual void server_lost(const pg_error& why) = 0;
  virtual bool wants_more() const = 0;    // false: stop reading from the server
  virtual void server_drained() = 0;      // what was held back for the server has left

 protected:
  ~server_user() = default;
};

class server final : private server_stream_user, private session::ledger_events {
 public:
  server(worker&, local_pool&, std::string pooler, lease::grant&&,
         std::unique_ptr<server_stream>);
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  // One door for who uses it.
  void attach(server_user* user);
  void detach();
  // To another user within one transaction: its portals stay.
  void pass_to(server_user* user);
  server_user* user() const { return user_; }

  // False when the connection is dead (the user hears server_lost later, from the loop).
  void send(std::string_view bytes);
  bool blocked() const { return !pending_.empty(); }
  void resume_reading();
  void flush_virtual() { ledger.flush_virtual(*this); }

  // Owes nothing and nothing may be lost by lending it to somebody else.
  bool quiet() const;
  bool usable() const { return !broken_ && !ledger.violated() && !ledger.doubtful(); }
  void mark_broken() { broken_ = true; }
  // Its network is gone: the user hears so from the loop, after what has come already.
  void cut() { stream_->cut(); }
  bool pumped() const { return stream_->pumped(); }

  lease::give_back hand_over(lease::condition) const;

  session::ledger ledger;
  session::pair_set_ref settings;    // applied on top of the pool's defaults
  session::pair_set_ref parameters;  // ParameterStatus values
  bool settings_unknown = false;     // must be applied in full
  bool dirty = false;                // DISCARD ALL before anybody else uses it
  bool cancelling = false;           // until the pooler reports that the cancel is over
  bool retiring = false;             // back at the next transaction end
  bool orphan = false;               // its pooler has died
  bool unheard = false;              // its pooler lives, and does nothing: cancels would not come

  // Of a Parse in the ledger: its statement, and whether it is for the unnamed slot.
  static std::uint64_t tag_of(const statement& parsed, bool unnamed) {
    return reinterpret_cast<std::uintptr_t>(&parsed) | (unnamed ? 1u : 0u);
  }
  static bool of_unnamed(std::uint64_t tag) { return (tag & 1) != 0; }

  // Prepared statements on it.
  present_statements present;        // those that have a name
  statement_ref unnamed;             // in the unnamed slot; null: unknown or none
  // The batch of the last message that was to change the slot.
  std::uint64_t unnamed_batch = present_statements::surely;

  // What the execution of a portal does. Null: nothing, or there is none.
  void portal_is(std::string_view name, session::effects what);
  session::effects portal(std::string_view name) const;
  void forget_portals();
  void forget_unnamed_portal() { unnamed_portal_.reset(); }

  lease::lease_id id() const { return id_; }
  lease::generation generation() const { return generation_; }
  const std::string& pooler() const { return pooler_; }
  local_pool& pool() const { return pool_; }
  std::uint32_t backend_pid() const { return backend_pid_; }
  net::time_point idle_since{};

 private:
  void stream_bytes(byte_span bytes) override;
  void stream_writable() override;
  void stream_ended() override;
  void receive(byte_span bytes);
  void lost(pg_error why);
  void watch();

  void forward(byte_span bytes) override;
  void inject(std::string_view bytes) override;
  void command_complete(const sql::statement* done, std::string_view tag, bool proxy) override;
  void error(const session::entry* head, byte_span body, bool proxy) override;
  bool rewrite_error(const session::entry* head, byte_span body,
                     std::string& replacement) override {
    return user_ != nullptr && user_->rewrite_error(head, body, replacement);
  }
  void dropped(const session::entry&) override;
  void parameter(std::string_view name, std::string_view value) override;
  void ready(char status, bool proxy) override;
  void copy_in() override {}

  worker& worker_;
  local_pool& pool_;
  std::string pooler_;
  std::unique_ptr<server_stream> stream_;
  lease::lease_id id_;
  lease::generation generation_;
  std::uint32_t backend_pid_;
  server_user* user_ = nullptr;
  std::unordered_map<std::string, session::effects> portals_;   // that have some
  session::effects unnamed_portal_;
  std::string pending_;  // not yet taken by the stream, behind the first pending_sent_ bytes
  std::size_t pending_sent_ = 0;
  std::string carry_;    // the beginning of a message
  bool broken_ = false;
};

}  // namespace pgsled::frontend
