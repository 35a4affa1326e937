#pragma once
// move_compare: whether the moving rows of one source are the same on the destination, without
// holding anybody back. A slot made for the purpose gives a snapshot of the source and its position
// in the log; the stream stops there for a moment, in which the destination's snapshot is taken;
// then both are read side by side while the stream goes on. Thread rule: the runner's thread, which
// keeps pumping the streams; what waits for servers is done on threads of its own.

#include <future>
#include <optional>

#include "services/replicator/move_stream.hpp"

namespace pgsled::replicator {

// A position of a source's log and a snapshot of what had been committed by then.
struct source_point {
  management::connection walsender;    // the snapshot lasts as long as it
  std::string snapshot;
  moving::lsn at = 0;
};
result<source_point> make_point(const move_scene&, shard_number source);
trouble begin_at(management::connection&, const source_point&);   // a transaction that sees that

class move_comparison {
 public:
  // All moving rows, or only those that were touched since the last comparison.
  move_comparison(const move_scene&, move_stream&, bool all);
  ~move_comparison();

  // Goes on without waiting; true when no difference was found. XX001 names one.
  result<bool> advance();

 private:
  result<bool> compare(management::connection there, const touched_rows& some) const;

  const move_scene& scene_;
  move_stream& stream_;
  bool all_;
  std::future<result<source_point>> making_;
  std::optional<source_point> point_;
  std::future<result<bool>> comparing_;
};

// One table on both sides; the two connections say what they see.
trouble same_rows(management::connection& here, management::connection& there,
                  const moving::table&, const moving::selection&, shard_number source,
                  const std::set<std::string>* among);

}  // namespace pgsled::replicator
