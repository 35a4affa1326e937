#pragma once
// waiting: rows that one stream of several to a destination cannot put there yet, because a
// row that came from another source is in their place: clients took it from there to here, and the
// stream of that source has not come so far, or has come farther. They wait here, changes of them
// included, until there is room. What a stream has put on the destination and what waits of it are
// together always what its source had at the stream's position; so once nobody writes and all
// streams have come to the end, each has room, unless two sources really have equal rows.
// Also on the destination (pgsled.job_waiting), in the transaction of the change itself, for who
// goes on with the stream. Thread rule: the stream's.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/moving/follower.hpp"
#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

class waiting_rows {
 public:
  static constexpr std::size_t most = 20'000;
  static constexpr std::size_t most_bytes = 64u << 20;

  struct entry {
    std::uint64_t id = 0;              // in pgsled.job_waiting
    moving::kept_row row;
  };
  // By the table's place and what the row is known by.
  using entries = std::map<std::pair<std::size_t, std::string>, entry>;

  waiting_rows(std::string job, std::string slot) : job_(std::move(job)), slot_(std::move(slot)) {}

  // What an earlier runner has left, of these tables.
  trouble load(management::connection&, const std::vector<moving::table>&);

  // Each gives the statement that does the same on the destination, for the open transaction.
  std::string put(const moving::table&, std::size_t place, const std::string& known_by,
                  moving::kept_row);
  std::string take(std::size_t place, const std::string& known_by);
  std::string take_table(std::size_t place);

  const entry* find(std::size_t place, const std::string& known_by) const;
  bool any_of(std::size_t place) const;
  const entries& all() const { return rows_; }
  bool empty() const { return rows_.empty(); }
  bool full() const { return rows_.size() >= most || bytes_ >= most_bytes; }
  std::uint64_t ever() const { return ids_; }   // how many have waited

 private:
  entries::iterator erase(entries::iterator);

  std::string job_, slot_;
  entries rows_;
  std::size_t bytes_ = 0;
  std::uint64_t ids_ = 0;
};

// A row as text, to be read by row_of(): an expression over the table's columns.
std::string row_as_text(const moving::table&);
result<moving::kept_row> row_of(const moving::table&, const std::string& text);

// Whether a row of another source may be in the way: that is what the server has said.
bool in_the_way(const pg_error&);

}  // namespace pgsled::replicator
