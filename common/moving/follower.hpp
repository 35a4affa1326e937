#pragma once
// follower: turns what one source says it has committed into what is to be done on the
// destination. Pure: decoded messages in, actions out.
//
// A row counts when its bucket is one of those that move; an update that takes a row into or out of
// them is an insert or a delete. Every statement is expected to touch exactly one row: anything
// else means that the two sides differ, and the move ends. So does a table that has changed; but of
// one that is known to have changed, and is what was given here since `agreed`, older rows are
// followed, too: columns that came later are left alone, those that have gone since left out.
// Transactions that pgsled itself replayed on the source are left out.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/moving/pgoutput.hpp"
#include "common/moving/table.hpp"

namespace pgsled::moving {

inline constexpr std::string_view origin_prefix = "pgsled_";
inline constexpr std::string_view marker_prefix = "pgsled";   // of pg_logical_emit_message

// A row that outlives the message it came in.
struct kept_field {
  wal::field::kind what = wal::field::kind::null;
  std::string value;
};
using kept_row = std::vector<kept_field>;
kept_row kept(const wal::tuple&);
wal::tuple borrowed(const kept_row&);

struct follow_action {
  enum class kind {
    change,   // `sql`, in the open transaction, begun if there is none
    commit,   // commit it, if there is one; the source is followed up to `end`
    marker,   // `content`; inside its transaction
  };
  kind what = kind::change;
  std::string sql;
  std::optional<std::int64_t> touches;   // rows that `sql` must touch; none: any number
  // Which rows of the table (its place in what the follower was given) may be others now, as
  // checksum() takes them. None of a change that touches any number: all of them.
  std::size_t table = 0;
  std::vector<std::string> rows;
  // Of tables with a primary key, if asked for (keep_rows): what is needed when a row of another
  // source is in the way. `rows` is then what the row was known by before, if it was there (had),
  // and after, if it is (row).
  bool had = false;
  std::optional<kept_row> row;
  lsn end = 0;
  std::string content;
};

class follower {
 public:
  // `tables` as the source has them, and has had since what was committed at `agreed`. keep_rows:
  // see follow_action::row.
  follower(std::vector<table> tables, selection rows, lsn agreed = 0, bool keep_rows = false);

  // 55000 when the destination cannot follow; nothing may be fed any more then.
  result<std::vector<follow_action>> feed(const wal::any&);
  // What ended it was a table with other columns than were given: those of now may be given anew.
  bool columns_changed() const { return columns_changed_; }

 private:
  using actions = std::vector<follow_action>;
  struct known {
    const table* of = nullptr;   // null: takes no part
    // Of a table that was another then: place in the table of each of its columns, none: it has
    // gone since. Empty: the columns are the table's.
    std::vector<std::size_t> places;
  };
  template <class Row>
  std::optional<pg_error> follow(const Row&, std::optional<pg_error> (follower::*)(const Row&,
                                                                                  actions&),
                                 actions&);
  std::optional<pg_error> fit(const known&, wal::tuple&) const;
  follow_action one_row(const table&, std::string sql, std::vector<std::string> rows, bool had,
                        const wal::tuple* after) const;

  std::optional<pg_error> learn(const wal::relation&);
  std::optional<pg_error> learn_older(const wal::relation&, known&) const;
  std::optional<pg_error> insert(const wal::insert&, actions&);
  std::optional<pg_error> update(const wal::update&, actions&);
  std::optional<pg_error> erase(const wal::erase&, actions&);
  std::optional<pg_error> truncate(const wal::truncate&, actions&) const;
  result<const table*> find(std::uint32_t relation, const wal::tuple&) const;
  result<bool> moves(const table&, const wal::field& key) const;   // of one of tables_

  std::vector<table> tables_;
  std::vector<std::optional<placement::mapping_index>> mappings_;   // as tables_
  selection rows_;
  std::vector<bool> moving_;           // by bucket
  std::map<std::uint32_t, known> relations_;
  bool ours_ = false;                  // the transaction came from pgsled
  lsn agreed_ = 0;
  bool before_ = false;                // the transaction was committed before that
  bool columns_changed_ = false;
  bool keep_rows_;
};

// INSERT of a row; 55000 when a value of it is not known.
result<std::string> insertion(const table&, const wal::tuple&);
// A condition for the row of a table with a primary key.
result<std::string> known_by(const table&, const wal::tuple&);

}  // namespace pgsled::moving
