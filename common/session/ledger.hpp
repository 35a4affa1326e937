#pragma once
// ledger: every reply that is owed on one server connection, in order, with the proxy's own
// injected messages as entries of it. It walks the server's bytes, says which go to the client and
// which are swallowed, and knows when the connection owes nothing any more. Pure; allocates only
// when its queue grows. Thread rule: one owner.
//
// What the server sends for each kind of entry:
//   query          (T D* C | C | I | G … | H d* c C | E)* Z
//   function_call  (V | E) Z
//   parse 1 · bind 2 · close 3 · describe_statement t (T | n) · describe_portal T | n
//   execute        D* (C | s | I) | G …client copies… C | H d* c C
//   sync           Z
//   copy_end       nothing: CopyDone or CopyFail was sent before the server asked for the data
//   an E for any of the extended ones drops every entry before the next sync
// Asynchronous at any time: N S A.
// A statement of a query can be the proxy's own, too (sql::statement::injected).
// `virtual_*` entries are replies nobody sends: the ledger makes them when their turn comes.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/sql/statement.hpp"
#include "common/wire/frame.hpp"

namespace pgsled::session {

enum class owed : std::uint8_t {
  query,
  function_call,
  parse,
  bind,
  describe_statement,
  describe_portal,
  execute,
  close,
  sync,
  virtual_parse,
  virtual_close,
  copy_end,
};

using effects = std::shared_ptr<const std::vector<sql::statement>>;

struct entry {
  owed kind{};
  bool proxy = false;       // injected: its replies are swallowed
  bool prepares = false;    // a parse that the owner takes for done until it is dropped
  std::uint16_t next_effect = 0;
  std::uint64_t tag = 0;    // the owner's: which statement a parse was for
  std::uint32_t mark = 0;   // the owner's: which of its notes is about this entry; 0: none
  session::effects effects{};  // of the statements in a query or execute; null: none
};

class ledger_events {
 public:
  virtual void forward(byte_span bytes) = 0;   // to the client, valid during the call only
  virtual void inject(std::string_view bytes) = 0;  // to the client, made by the ledger
  // `done` is null for a statement without effects.
  virtual void command_complete(const sql::statement* done, std::string_view tag, bool proxy) = 0;
  // Of a very long one only the beginning is in `body`, cut to a well-formed message.
  virtual void error(const entry* head, byte_span body, bool proxy) = 0;
  // Of an error that goes to the client, unless it is a very long one: true when `replacement` (a
  // whole message) is to go instead.
  virtual bool rewrite_error(const entry* head, byte_span body, std::string& replacement) {
    static_cast<void>(head);
    static_cast<void>(body);
    static_cast<void>(replacement);
    return false;
  }
  // Skipped because of an error before it, or failed itself.
  virtual void dropped(const entry&) = 0;
  virtual void parameter(std::string_view name, std::string_view value) = 0;
  virtual void ready(char status, bool proxy) = 0;
  // The copy of a query or execute begins: the client may now send CopyData.
  virtual void copy_in() = 0;

 protected:
  ~ledger_events() = default;
};

// A server takes it in a transaction that has failed, and it is not one any more behind it.
bool leaves_failure(const sql::statement&);

class ledger {
 public:
  // Messages up to this size are looked at whole. Larger ones only ever pass through; of a larger
  // ErrorResponse the beginning is looked at, any other that would have to be is a violation.
  static constexpr std::size_t max_inspected = 64 * 1024;

  // The client (or the proxy) has sent a message that is owed a reply. While the server skips to
  // the next Sync because of an error, entries other than sync are not taken (false).
  bool add(entry);
  // CopyDone or CopyFail has been sent, perhaps before the server has said CopyInResponse.
  void copy_ended();

  // Consumes what it can of `bytes`; the rest must come again, with more behind it. A violation of
  // the protocol by the server: `violated()` is true afterwards and the connection is unusable.
  std::size_t receive(byte_span bytes, ledger_events& events);

  // Replies at the head that only we owe, when the server owes nothing before them.
  void flush_virtual(ledger_events& events);

  bool empty() const { return queue_.empty(); }
  std::size_t size() const { return queue_.size(); }
  // Something that is owed may change the session: SET and the like, the end of a transaction.
  bool effects_pending() const {
    return std::any_of(queue_.begin(), queue_.end(),
                       [](const entry& one) { return one.effects != nullptr; });
  }
  // One of the statements that are owed a reply and may change the session is such a one.
  template <class Predicate>
  bool pending(Predicate is_such) const {
    return std::any_of(queue_.begin(), queue_.end(), [&](const entry& one) {
      return one.effects != nullptr &&
             std::any_of(one.effects->begin() + one.next_effect, one.effects->end(), is_such);
    });
  }
  // Of what is owed, something runs a statement or has begun to.
  bool runs_something() const {
    return std::any_of(queue_.begin(), queue_.end(), [](const entry& one) {
      return !one.proxy && (one.kind == owed::query || one.kind == owed::function_call ||
                            one.kind == owed::bind || one.kind == owed::describe_portal ||
                            one.kind == owed::execute);
    });
  }
  bool copying_in() const { return client_copies_; }
  bool mid_message() const { return streaming_ != 0; }
  bool skipping() const { return skipping_; }
  bool violated() const { return violated_; }
  // The server has taken messages of the extended protocol since the last Sync or Query: its
  // implicit transaction is open although it owes nothing and its status is 'I'.
  bool unsynced() const { return unsynced_; }
  // What it owes it may keep to itself until a Sync or Flush.
  bool may_hold_back() const;
  // Batches are what Syncs end, numbered from 0. What is sent now belongs to this one; of those
  // below answered() every reply has come.
  std::uint64_t batch() const { return batch_; }
  std::uint64_t answered() const { return answered_; }
  // What was sent in that batch may have been skipped because of an error before it, and this batch
  // is a later one: within the same what needs it would be skipped as well.
  bool in_doubt(std::uint64_t batch) const { return batch < batch_ && batch >= answered_; }
  // In doubt what the server still owes (a Sync sent inside a COPY that then failed).
  bool doubtful() const { return doubtful_; }
  // Of the last ReadyForQuery.
  char status() const { return status_; }
  // It is 'E', and no ROLLBACK has been answered since.
  bool failed() const { return status_ == 'E' && !left_failure_; }
  bool head_is_proxy() const { return !queue_.empty() && queue_.front().proxy; }

 private:
  struct walk;
  bool handle(char type, byte_span body, bool whole, ledger_events& events, bool& forwarded);
  bool complete(byte_span body, ledger_events& events, bool& forwarded);
  bool fail(byte_span body, bool whole, ledger_events& events, bool& forwarded);
  void begin_copy(ledger_events& events);
  bool ready(byte_span body, ledger_events& events);
  void pop();
  bool head_is(owed kind) const { return !queue_.empty() && queue_.front().kind == kind; }
  // What the server says now is about something that the proxy has sent.
  bool swallows() const;
  bool head_runs() const { return head_is(owed::query) || head_is(owed::execute); }

  std::deque<entry> queue_;
  std::size_t streaming_ = 0;      // bytes of a large message still to come
  bool streaming_forward_ = false;
  bool skipping_ = false, violated_ = false, doubtful_ = false, unsynced_ = false;
  bool client_copies_ = false;     // between CopyInResponse and the client's CopyDone/CopyFail
  bool head_copies_ = false;       // the head is in a COPY FROM STDIN
  bool sync_inside_copy_ = false;
  bool left_failure_ = false;
  char status_ = 'I';
  std::uint64_t batch_ = 0, answered_ = 0;
};

}  // namespace pgsled::session
