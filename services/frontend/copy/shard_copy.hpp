#pragma once
// shard_copy: one COPY of a client on several shards, inside the client's transaction over them
// (shard_transaction) or one of its own. All shards load, or none does.
//   FROM STDIN  all legs are asked for the table's columns, under its lock, then sent the client's
//               own statement; what the client sends is held until a replicator has said by cuts
//               which bytes go to which shard, and goes there from the buffer. A table that is on
//               every shard needs no cuts: each gets every byte.
//   TO STDOUT   the legs are read one after the other; headers and trailers become one.
// The first error ends it on all shards; a server's line number is told as the client's.
// Split: shard_copy.cpp the legs, the phases and the end; input.cpp the client's data;
// output.cpp TO STDOUT. Bounds: `window` bytes under way to the replicator, max_held not cut
// yet (a row before its key); while a shard or the replicator does not keep up nothing is read
// from the client. Servers are always read in FROM. Owned by its client; thread rule: the worker's.

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/copy/scatter.hpp"
#include "common/copy/spec.hpp"
#include "services/frontend/copy/split_line.hpp"
#include "services/frontend/leases/server.hpp"
#include "services/frontend/statements/plans.hpp"

namespace pgsled::frontend {

class client;

class shard_copy final : private split_user {
 public:
  static constexpr std::size_t window = 1u << 20, max_batch = 128 * 1024;
  static constexpr std::size_t max_held = 64u << 20;

  shard_copy(worker&, client&);
  ~shard_copy();

  // The client's spread_ is there; state is copying. `alone`: the transaction is this COPY's own.
  void run(std::string unit_bytes, std::string sql, plan_ref, bool alone);
  // What the client has sent; how much of it was taken.
  std::size_t input(byte_span);
  void cancel();
  void abandon();          // the client is gone
  void client_paced();     // its socket is blocked, or is no longer

  static std::vector<std::uint32_t> shards_of(const plan::plan&, const client&);
  static pg_error on_two_shards();   // why COPY TO waits for a move to be over

 private:
  struct leg;
  enum class phase : std::uint8_t {
    joining, columns, waiting,   // waiting: for a replicator
    starting, streaming,         // the statement, and its data
    ending,                      // CopyDone has been sent
    failing,                     // legs are still busy
    finishing,                   // the transaction ends
    over,
  };
  // An error as the fields of an ErrorResponse.
  struct told_error {
    std::string body, sqlstate;
    std::uint64_t line = 0;      // of the client's input; 0: not known
  };

  // shard_copy.cpp
  void joined(const pg_error* why);
  void columns_known();
  std::string columns_sql() const;
  void start();
  void leg_read(leg&);
  void leg_done(leg&);
  void leg_lost(leg&, const pg_error& why);
  void fail(told_error);
  void fail(const pg_error&, const std::string& context = {}, std::uint64_t line = 0);
  void give_up(leg&);
  bool any_running() const;
  void legs_quiet();
  void end_transaction();
  void answer(const std::string& warning = {});
  void answer_beginning();
  told_error server_error(const leg&, byte_span body) const;
  static told_error own_error(const pg_error&, const std::string& context, std::uint64_t line);
  const plan::copy_plan& job() const { return plan_->plan.copy; }
  bool incoming() const { return plan_->plan.destination == plan::destination::copy_in; }
  void later(std::function<void()>);

  // input.cpp
  bool make_spec(pg_error& why);
  bool defaults_are_the_same(pg_error& why) const;
  bool read_encodings(const session::pair_set_ref& parameters, pg_error& why);
  void find_splitter();
  void begin_input();
  bool room() const;
  void take(byte_span payload);
  void send_batches();
  void input_ends();
  void end_copies();
  void cuts_came(const copy::cut_list&, bool end) override;
  void split_failed(const copy::split_error&) override;
  void splitter_lost(std::string_view why) override;
  void close_splitting();

  // output.cpp
  void next_output();
  void output(leg&, byte_span bytes);

  worker& worker_;
  client& client_;
  std::string unit_, sql_;
  plan_ref plan_;
  std::map<std::uint32_t, std::unique_ptr<leg>> legs_;
  std::vector<std::unique_ptr<leg>> gone_;   // until nothing of theirs is on the stack
  phase phase_ = phase::joining;
  bool alone_ = false, simple_ = false, begun_ = false, lost_ = false;
  bool forced_ = false;                        // a leg has been made to fail
  std::unique_ptr<told_error> error_;
  std::uint64_t rows_ = 0;

  copy::spec spec_;
  std::unique_ptr<copy::scatter> held_;
  std::vector<std::string> out_;             // by shard, scratch
  split_line* line_ = nullptr;               // null: none, or not needed
  std::uint64_t number_ = 0;                 // of the COPY on it
  std::deque<std::size_t> batches_;          // sizes, unanswered
  std::size_t under_way_ = 0;                // their sum
  std::uint64_t message_left_ = 0;           // of a CopyData message
  bool done_seen_ = false;                   // CopyDone
  bool input_over_ = false;                  // and what follows it allows to go on
  bool last_sent_ = false;
  net::time_point patience_{};
  net::reactor::timer_id timer_ = 0;

  std::vector<std::uint32_t> order_;         // TO STDOUT: shards still to be read
  bool first_output_ = true;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace pgsled::frontend
