#pragma once
// same_rows: statements that write rows which are on every shard, said to one shard after the
// other. Exact or error: each server tells what it has written, row by row, and a shard that has
// written anything else than the first is an error.
//   - Behind the client's text goes a column of RETURNING that is the digest of the row as stored
//     (for DELETE: as it was). The client does not see it.
//   - What an INSERT without ON CONFLICT has made on the first shard, the others are given as
//     values: so a sequence, a clock or a random number counts once. Where text would not carry the
//     values (DateStyle, IntervalStyle, extra_float_digits, client_encoding of the session), they
//     get the client's text like the rest, and the digests decide.
//   - The rows that the client gets are the first shard's; of statements said again they must be
//     the same on all.
//   - SELECT … FOR UPDATE locks rows on all shards in that order, so that who waits for a row waits
//     on the first; the digest of the row that is locked stands behind the select list.
// What triggers write elsewhere is not seen. Pure; one conversation is one object.
// Bounds: max_held bytes of the first shard's rows (54000).

#include <map>

#include "common/plan/plan.hpp"
#include "services/frontend/shards/conversation.hpp"

namespace pgsled::frontend {

class same_rows final : public conversation {
 public:
  static constexpr std::size_t max_held = 16u << 20;

  struct statement {
    std::string sql;        // the client's
    std::string types;      // of Parse, 4 bytes each
    std::string values;     // of Bind, behind the names
    plan::row_write rows;
    std::size_t limit = 0;  // of Execute: rows that the client wants; 0: all
  };
  // What the client is to be told of one statement: messages, whole.
  struct answer {
    std::string parameters, columns, rows, tag;   // columns empty: NoData
    bool suspended = false;                       // the limit is reached: no tag is told
  };

  // `described`: statements of which the client wants to know the types, too.
  same_rows(bool simple, bool standard_strings, std::vector<statement> run,
            std::vector<statement> described);

  speech say(std::uint32_t shard) override;
  void heard(char type, byte_span body) override;
  std::optional<pg_error> answered(std::uint32_t shard) override;

  const answer& told(std::size_t at) const { return run_[at].answer; }
  const answer& described(std::size_t at) const { return described_[at].answer; }
  // What the client is told of an error that has ended it: the body of an ErrorResponse. Empty: the
  // error is none that a server has said here.
  std::string error_for(const pg_error&) const;

  // The client's statement and what makes the server say what it has written.
  // `at`, if wanted: how many bytes of the client's text come before that.
  static std::string with_digest(const statement&, bool standard_strings,
                                 std::size_t* at = nullptr);

 private:
  // Rows in any order: shards may find them in another.
  struct sum {
    std::uint64_t count = 0, digest[2] = {}, client = 0;
    bool other_tag = false;     // than the first shard
    bool operator==(const sum&) const = default;
  };
  struct task {
    same_rows::statement statement;
    std::string sql;            // with the digest
    std::size_t put_at = 0, put = 0;   // characters put into the client's text, behind how many
    same_rows::answer answer;
    sum first, now;
    std::string again;          // what the other shards are told instead; empty: the same
    std::vector<std::string> made;   // rows of the first shard, as PostgreSQL writes a row
    bool has_again() const { return !again.empty(); }
  };
  enum class part : std::uint8_t { describing, running, asking };
  struct turn {
    part what;
    task* of;
  };

  void add_run(speech& to, task&) const;
  void row(task&, byte_span body);
  void describe(std::string& to, const task&, byte_span body) const;
  void ask_columns(speech& to, const task&) const;
  void columns_known(task&, byte_span body);
  // Fields at the end of a row that are ours.
  std::size_t own_fields(const task& t) const { return t.statement.rows.repeatable ? 2 : 1; }
  pg_error differs(std::uint32_t shard, const task&) const;

  const bool simple_;
  std::vector<task> run_, described_;
  std::vector<turn> turns_;     // of the leg that speaks; each ends with ReadyForQuery
  std::size_t turn_ = 0, held_ = 0;
  std::uint32_t first_shard_ = 0;
  bool first_ = true, malformed_ = false;
  std::string error_;           // body of the first ErrorResponse
  std::size_t shown_ = 0;       // characters of the client's text that it is about; 0: of ours
  std::size_t put_at_ = 0, put_ = 0;   // and of ours within it
};

}  // namespace pgsled::frontend
