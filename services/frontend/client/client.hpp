#pragma once
// client: one client connection, from accept to close. Small when idle: what only some states
// need is behind pointers. The protocol knowledge is in the machines it uses (login, ledger,
// shadow); here their answers become reads, writes and leases. Split by concern:
//   client.cpp      life cycle, socket, taking input apart
//   server.cpp      what the attached server says; taking a lease and letting it go
//   login.cpp       from the first byte to the first ReadyForQuery
//   messages.cpp    one message after the other to the attached server
//   prepared.cpp    those of the extended protocol: what a name means, and that it is there
//   plans.cpp       by which plan a statement goes
//   keys.cpp        from the key that a plan names to the shard
//   goal.cpp        what a unit of messages is, and what its statements ask for together
//   routing.cpp     where a unit goes
//   batch.cpp       units that are answered without a server
//   fence.cpp       what waits while rows are moved
//   changes.cpp     what a new snapshot or a drain means for it
//   steps.cpp       a Query of several statements that do not go to one place
//   shards.cpp      a transaction over several shards: which leg a unit goes to
//   everywhere.cpp  statements for all shards
//   shards_end.cpp  what all legs are told, and the end
//   copy.cpp        COPY on several shards
//   admin.cpp       the admin database
// Thread rule: its worker's.

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/bus/envelope.hpp"
#include "common/net/reactor.hpp"
#include "common/session/script.hpp"
#include "common/session/shadow.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/endpoint.hpp"
#include "services/frontend/leases/local_pool.hpp"
#include "services/frontend/leases/server.hpp"
#include "services/frontend/leases/transport.hpp"
#include "services/frontend/statements/plans.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

class worker;
class query_steps;
class same_rows;
class shard_copy;
class shard_transaction;
struct aim;
struct cursor_use;
struct login_state;
struct unit;
struct unit_goal;

class client final : public net::watcher, public lease_waiter, public server_user {
 public:
  client(worker&, net::unique_fd fd, bool local);
  ~client();

  enum class state : std::uint8_t {
    login,       // until the first ReadyForQuery
    ready,       // messages are taken as they come
    waiting,     // for a lease
    applying,    // settings and BEGIN are on their way to the new server
    planning,    // for an answer of the router
    fenced,      // for rows that are being moved to be where they belong
    settling,    // for the server to owe nothing: what comes next depends on it
    refusing,    // the transaction on the server is being failed, too
    spreading,   // something happens to all shards of the transaction
    copying,     // a COPY runs on several shards
    asking,      // the router answers for the admin database
    closed,
  };

  // lease_waiter
  void granted(server& lent) override;
  void not_granted(const pg_error& why) override;
  // server_user
  void from_server(byte_span bytes) override;
  void statement_done(const sql::statement* done, std::string_view tag, bool proxy) override;
  void server_error(byte_span body, bool proxy) override;
  bool rewrite_error(const session::entry* head, byte_span body, std::string& replacement) override;
  void entry_dropped(const session::entry&) override;
  void server_parameter(std::string_view name, std::string_view value, bool proxy) override;
  void server_ready(char status, bool proxy) override;
  void server_read_done() override;
  void server_lost(const pg_error& why) override;
  bool wants_more() const override;
  void server_drained() override;

  // From the worker.
  bool matches_secret(std::string_view secret) const {
    return !secret.empty() && secret == secret_;
  }
  void cancel();
  void end_deadlock(std::uint32_t began);
  void check_timeouts(net::time_point now);
  void drain();                        // close as soon as no transaction is open
  void end(const pg_error& fatal);     // FATAL, then close
  void refuse_at_startup(const pg_error& why);  // answered once the client has spoken
  void snapshot_changed();
  bool in_transaction() const;
  bool in_block() const;
  // A fence goes up: what runs now counts as begun before it until before_fence() says no more.
  void fence_raised();
  bool before_fence();
  void fence_fell();
  void look_at_fence();    // what else holds it may be over
  void place_again();      // who waits for a shard may have to wait for another
  // Around a snapshot: a log-in that waits for a connection waits for one of the servers of then.
  void leave_login_queue();
  void enter_login_queue();
  // Who waits for a connection of a pool that is not among them asks again, of those that are.
  void leave_queue(const std::set<std::uint32_t>& pools);
  // Other servers have the name of its database: a session that is bound to a connection ends.
  void servers_changed();

  struct counters {
    std::uint32_t queries = 0, transactions = 0, errors = 0;
    std::uint64_t received = 0, sent = 0;
  };
  state now_in() const { return state_; }
  const endpoint_ref& where() const { return endpoint_; }
  server* attached() const { return server_; }
  const counters& counts() const { return counts_; }
  bool pinned() const { return pinned_; }
  std::uint32_t slot() const { return slot_; }
  std::uint64_t serial() const { return serial_; }
  net::time_point connected_at() const { return connected_at_; }
  net::time_point last_request() const { return last_request_; }
  std::size_t prepared_count() const { return prepared_ ? prepared_->size() : 0; }
  std::string address() const;
  std::string application_name() const;

 private:
  friend class shard_copy;

  // client.cpp and server.cpp
  void on_events(std::uint32_t events) override;
  void read_input();
  void consume(byte_span fresh);
  void take_input(byte_span fresh);
  std::size_t process(byte_span bytes);
  void resume();
  void watch();
  void write(std::string_view bytes);       // straight to the client
  void flush_to_client();
  void close(std::string_view reason);
  void violate(std::string_view what);      // 08P01 and close
  void set_state(state next);
  bool suspended() const;
  bool ensure_server(std::uint32_t shard);  // false: suspended
  bool attach(server& lent);
  void applied();
  void settings_decided(char status);       // of a ReadyForQuery
  void tell_parameters(const session::pair_set_ref& now);
  void let_go();
  bool may_let_go() const;
  // Something has run on the server since the last Sync, and in its transaction at all.
  void touched() {
    light_ = false;
    unrun_ = false;
  }
  bool movable() const {
    return light_ && !server_->ledger.skipping() &&
           (status() == 'I' || (status() == 'T' && unrun_));
  }
  char status() const;

  // login.cpp
  std::size_t login_input(byte_span bytes);
  std::size_t startup_packet(byte_span bytes);
  void begin_tls(bool direct);
  bool continue_tls();
  bool look_at_first_byte();
  void start_session(const std::vector<std::pair<std::string, std::string>>& parameters);
  void authenticated();
  void get_parameters();
  void finish_login();
  void refuse_login(const pg_error& why);

  // messages.cpp
  struct output;
  bool message(char type, byte_span body, byte_span whole, output& out);
  bool query(byte_span body, output& out);
  bool repeats_unnamed(const wire::parse_message&) const;
  statement_ref cached_statement(const wire::parse_message& sent);
  std::string_view parse_context(std::string& own) const;
  static bool changes_parsing(const sql::statement& ran);   // SET LOCAL
  statement_ref as_used(const statement_ref& parsed);
  bool is_unconfirmed(std::string_view name) const;
  void settle();
  void settled();
  void run_effects(const session::effects&);
  bool standard_strings() const;
  bool discard_is_refused() const;
  bool discard_all(const sql::statement&, byte_span body, session::entry, output& out);
  std::string with_start_again(std::string_view text, std::vector<sql::statement>& all);
  const std::string* name_to_deallocate(const session::effects&);
  void prepare_stand_in(const std::string& name, output& out);
  // One statement; the session goes on. `simple`: it came by Query or FunctionCall.
  // `fields`: the ErrorResponse's body, if it is a server's.
  void refuse(const pg_error& why, bool simple, std::string_view fields = {});
  bool unattached(char type, byte_span body);

  // prepared.cpp
  // Of one client. PostgreSQL has no such limit; memory has.
  static constexpr std::size_t max_prepared = 100'000;
  bool parse(byte_span body, output& out);
  bool bind(byte_span body, byte_span whole, output& out);
  bool describe(byte_span body, output& out);
  bool lacks_in_failure(std::string_view name);
  bool texts_in_doubt() const;
  bool close_object(byte_span body, output& out);
  bool execute(byte_span body, output& out);
  void prepare_on_server(const statement_ref&, std::string_view name, output& out, bool proxy,
                         std::uint32_t mark = 0);
  bool wait_for_answers(output& out);
  bool make_room(const statement_ref&, std::string_view name, output& out);
  std::unordered_map<std::string, statement_ref>& names();
  bool has_room_for_name();
  bool in_doubt(std::string_view name) const;
  bool goes_in_doubt(std::string_view name) const;
  bool text_in_doubt(const statement_ref&, std::string_view name) const;
  void ensure_unnamed(output& out);
  void unnamed_goes();
  void ensure_prepared(const statement_ref&, output& out);
  statement_ref* find_prepared(std::string_view name);
  void start_again(const sql::statement&, output& out);

  enum class routed { go, need_more, suspended, done };

  // changes.cpp
  bool waits_unbegun() const;
  void leave_pools();       // their queues
  void ask_again();         // for a connection
  bool ends_with_drain();   // where nothing is under way; true: it has ended
  bool is_kept() const;     // the session has a connection of its own
  bool shards_changed();
  bool leaves_old_shards(output& out);
  void end_with_its_shards();

  // plans.cpp
  std::string_view search_path() const;
  void write_scope(std::string& to) const;
  bool is_scope(std::string_view) const;
  bool meaning_in_doubt() const;
  bool is_another_role() const;
  bool planned() const;                // every statement is asked about
  bool plan_statement(std::string_view sql, byte_span types, statement* remember, plan_ref& into);
  void ask_plan(std::string_view sql, byte_span types, std::string key, std::string scope);

  // goal.cpp
  bool read_unit(byte_span bytes, unit& into);
  bool read_goal(unit&, unit_goal& into);
  void ask_for(unit&, unit_goal&, std::size_t part, const plan_ref&, std::string_view sql);

  // routing.cpp
  std::uint32_t own_shard() const;
  // `stepwise`: only up to the first Execute of the unit.
  routed route(byte_span bytes, bool stepwise = false);
  routed settle_first();
  routed settle_elsewhere();
  std::optional<routed> take_otherwise(const unit&, byte_span bytes, unit_goal&, bool stepwise);
  std::optional<routed> begin_in_batch(const unit&, unit_goal&);
  std::optional<routed> close_portals_first(const unit&, byte_span bytes);
  std::optional<std::size_t> name_in_use(const unit&, bool up_to_execute) const;
  std::optional<routed> refuse_name_in_use(const unit&, bool up_to_execute);
  routed refuse_goal(const unit&, const pg_error& why);
  routed route_spread(const unit&, byte_span bytes, unit_goal&);
  bool answer_virtually(const unit&, const unit_goal&);
  bool virtual_answer(const unit&, const sql::statement& only, std::string_view text);
  routed route_to_one(const unit&, const unit_goal&);

  // batch.cpp
  void refuse_unit(const unit&, const pg_error& why, std::string_view fields = {});
  void begin_batch();
  routed end_batch(const unit&, byte_span bytes, bool failed = false);
  routed undo_batch(const pg_error& why);
  bool begin_alone(const unit&, byte_span bytes);
  void virtually_done(const sql::statement&, std::string_view tag);
  routed virtual_unit(const unit&, const sql::statement&, std::string_view tag);
  void answer_unit(const unit&, std::string_view tag, const same_rows* = nullptr);

  // fence.cpp
  bool unseen() const;
  bool held_back(char type, output& out);
  routed hold_at_fence(bool fenced);
  void wait_at_fence();

  // steps.cpp
  routed take_apart(const unit&, std::string_view text, const session::effects& executed);
  bool next_step();
  void end_steps();
  std::optional<pg_error> beyond_batch(const session::effects&, std::string_view text) const;
  void warn_in_batch(const session::effects& executed, std::string_view text);

  // shards.cpp
  routed grow(const unit&, std::uint32_t shard);
  routed route_shards(const unit&, byte_span bytes, const aim&, const session::effects& executed,
                      std::size_t controls, std::string_view text, const plan::plan* everywhere);
  void bind_session(std::uint32_t shard);
  routed sync_first();
  routed join(std::uint32_t shard);
  // Makes spread_ of the client's transaction, or of a new one for a statement in autocommit
  // (`implicit`); false with the reason. The server, if there is one, owes nothing and is its leg.
  bool spread_out(bool implicit, pg_error& why);
  void spread_over_server(bool implicit);   // what spread_out() does where nothing is against it
  std::unordered_map<std::string, std::uint32_t>& portal_shards();
  void note_portals(const unit&, const cursor_use&, std::uint32_t shard);
  void follow_portals(const unit&, const cursor_use&, aim&) const;
  std::optional<pg_error> beyond_cursors(const cursor_use&, const aim&) const;
  void park();
  void lend(std::uint32_t shard);

  // everywhere.cpp
  routed route_everywhere(const unit&, byte_span bytes, const plan::plan&, std::string_view text);
  void run_everywhere(std::string unit_bytes, const plan::plan&, std::string sql, bool implicit);
  void run_in_turn(std::shared_ptr<const std::string> unit_bytes, std::string sql);
  void write_everywhere(std::string unit_bytes, std::shared_ptr<same_rows>, bool implicit);
  bool read_writes(const unit&, std::shared_ptr<same_rows>& into) const;
  std::vector<std::uint32_t> holding_shards() const;
  void ran_everywhere(const std::string& unit_bytes, std::string tags, const pg_error*,
                      bool implicit, const std::shared_ptr<same_rows>& = nullptr);

  // shards_end.cpp
  void end_shards(std::string unit_bytes, const sql::statement& effect, bool commit);
  void tell_shards(std::string unit_bytes, const sql::statement& effect, std::string_view text);
  void note_unsettled(const std::vector<std::string>& names);
  void settle_names(const sql::statement& savepoint);
  void answer_shards(const std::string& unit_bytes, std::string_view tag, const pg_error* error,
                     const std::string& warning = {}, const same_rows* = nullptr);
  bool shards_ended(const sql::statement& effect, std::string_view tag);

  // copy.cpp
  routed route_copy(const unit&, byte_span bytes, const plan_ref&, std::string_view sql);

  // keys.cpp
  placement::encoding key_encoding() const;
  result<placement::value> key_value(const plan::key&, const placement::rule&,
                                     std::string_view sql, const byte_span* bind_body,
                                     std::string& room);
  bool key_shard(const plan::plan&, std::string_view sql, const byte_span* bind_body,
                 std::uint32_t& shard, bool& fenced, pg_error& why);

  // admin.cpp
  routed admin(byte_span bytes);
  void ask_router(bus::kind, const std::string& payload, std::chrono::seconds limit,
                  std::function<void(const result<bus::envelope>&)> then);
  void admin_answer(const std::string& unit_bytes, result<std::string> json);

  worker& worker_;
  transport transport_;
  std::unique_ptr<login_state> login_;
  endpoint_ref endpoint_;
  server* server_ = nullptr;
  std::unique_ptr<session::shadow> shadow_;
  session::pair_set_ref reported_;          // ParameterStatus values the client knows
  std::unique_ptr<std::unordered_map<std::string, statement_ref>> prepared_;
  // What Parse, Close, Query and a DEALLOCATE have changed since the server last said that all is
  // well, to be taken back should it skip them. Name empty: the unnamed statement, and what it was
  // before.
  struct note {
    std::string name;
    statement_ref statement;
    bool closed = false;
    bool repeated = false;  // the name was in use: nothing has changed
    bool unseen = false;    // a Parse that the server need not see
    std::uint64_t batch = 0;
  };
  std::unique_ptr<std::vector<note>> unconfirmed_;
  template <class Predicate>
  bool noted(Predicate is_such) const {
    return unconfirmed_ && std::any_of(unconfirmed_->begin(), unconfirmed_->end(), is_such);
  }
  bool closes_unconfirmed_ = false;         // some of them are closed
  std::uint64_t unseen_since_ = present_statements::surely;  // the first batch of an unseen one
  void unnamed_was(std::size_t first, statement_ref what);
  void confirm_changes();
  // Above it the client is not served until the server owes nothing.
  static constexpr std::size_t max_owed = 4096;
  bool pipeline_full() const;
  std::uint32_t take_name(const std::string& name);
  std::uint32_t note_change(std::string_view name, statement_ref statement, bool closed);
  statement_ref unnamed_;
  std::string pending_;                     // read, not yet processed
  // Of a sharded database: how the open transaction has begun, for the shards that join it.
  session::script script_;
  // The transaction over several shards. server_ is one of its legs, lent, or null.
  std::unique_ptr<shard_transaction> spread_;
  std::unique_ptr<shard_copy> copy_;
  // A Query's statements are taken one by one; steps_left_ bytes of pending_ are the one in hand.
  std::unique_ptr<query_steps> steps_;
  std::size_t steps_left_ = 0;
  // Of the open transaction: the shards of its named portals and cursors.
  std::unique_ptr<std::unordered_map<std::string, std::uint32_t>> portal_shards_;
  std::string secret_;
  std::unique_ptr<pg_error> apply_error_;
  std::unique_ptr<pg_error> begin_error_;   // of a transaction: its first statement has it
  bool begins_alone_ = false;               // on a connection that needs no settings first
  std::uint64_t streaming_ = 0;             // bytes of a client message still to pass through
  std::size_t unit_left_ = 0;               // bytes of a routed unit still to process
  counters counts_;
  net::time_point connected_at_, last_request_, fenced_since_;
  net::time_point written_at_;              // when it was last told something
  std::uint32_t slot_ = ~0u;
  std::uint32_t watched_ = 0;
  // Plans that are not kept (dispatch = "always", an incomplete shape), by text, for the unit in
  // hand.
  std::vector<std::pair<std::string, plan_ref>> answers_;
  state state_ = state::login;
  char virtual_status_ = 'I';               // of a transaction that no server knows yet
  bool local_ = false, pinned_ = false, skip_to_sync_ = false, light_ = true;
  bool encoding_uncertain_ = false;         // a statement of the unit in hand may change it
  bool dropping_ = false;                   // what streams is thrown away
  bool owes_ready_ = false, draining_ = false, processing_ = false, resume_scheduled_ = false;
  bool local_settings_ = false;             // SET LOCAL of what decides parsing has run in it
  // BEGIN was answered by us and nothing but the script has run since: the transaction can still
  // begin on another shard.
  bool unrun_ = false;
  bool batch_ = false;                      // the transaction is a batch's and ends with its Sync
  bool wrote_ = false;                      // a plan said that it writes; false: perhaps
  bool own_settings_ = false;               // on its connection, which nobody can say again
  bool defined_ = false;                    // the catalogs are others after COMMIT
  bool announces_ = false;                  // and that has been
  std::vector<std::string> unsettled_;      // by the open transaction: plan::unsettles
  std::vector<std::pair<std::string, std::vector<std::string>>> unsettled_at_;   // its savepoints
  bool datestyle_changed_ = false;
  bool before_fence_ = false;               // its transaction is older than the fence that is up
  bool error_is_fresh_ = false;             // nothing has been dropped because of it yet
  std::unique_ptr<std::vector<std::string>> settled_names_;  // by what an error has taken back
  std::uint32_t pins_ = 0, pins_when_discarded_ = 0;
  std::uint64_t shards_looked_at_ = 0;      // the epoch of shards_changed_
  bool shards_changed_ = false;
  std::uint64_t serial_ = 0;                // never used again by another client of the worker
  std::size_t unit_need_ = 0;               // bytes without which the unit in hand cannot be whole
  std::uint32_t unit_shard_ = 0;            // where the unit in hand goes
};

}  // namespace pgsled::frontend
