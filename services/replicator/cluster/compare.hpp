#pragma once
// compare: whether a shard that gets rows from several others has what those have together,
// without holding anybody back: as move/compare, but all streams to the shard stop for a moment,
// each at its source's position. Thread rule: the runner's thread, which keeps pumping the streams.

#include <future>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "services/replicator/move/compare.hpp"

namespace pgsled::replicator {

// Rows of tables, by label, as conditions.
using rows_of_tables = std::map<std::string, std::set<std::string>>;

// Adds what one stream has touched; false when that is not known.
bool gather_touched(const move_scene&, shard_number source, const touched_rows&, rows_of_tables&);

// Of what one stream waits with.
rows_of_tables waiting_of(const move_scene&, const move_stream&);

// All rows of the scene's destination, or those of `among` alone; `sources` in the scene's order.
// The connections say what they see. `waiting`: of each source the rows that cannot be on the
// destination yet; none: there are none. XX001 names the first difference, 23502 a row without a
// key.
trouble same_together(const move_scene&, const std::vector<management::connection*>& sources,
                      management::connection& there, const rows_of_tables* among,
                      const std::vector<rows_of_tables>& waiting = {});

class cluster_comparison {
 public:
  // Streams to the scene's destination, one of each source, in order. All rows, or only those that
  // were touched since the last comparison.
  cluster_comparison(const move_scene&, std::vector<move_stream*>, bool all);
  ~cluster_comparison();

  // Goes on without waiting; true when no difference was found.
  result<bool> advance();

 private:
  result<bool> points_made();
  result<bool> compare(management::connection there, const rows_of_tables& some) const;

  const move_scene& scene_;
  std::vector<move_stream*> streams_;
  bool all_;
  std::vector<std::future<result<source_point>>> making_;
  std::vector<source_point> points_;
  std::vector<rows_of_tables> waiting_;
  std::future<result<bool>> comparing_;
};

}  // namespace pgsled::replicator
