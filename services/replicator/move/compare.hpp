#pragma once
// compare: whether the moving rows of one source are the same on the destination, without
// holding anybody back. A slot made for the purpose gives a snapshot of the source and its position
// in the log; the stream stops there for a moment, in which the destination's snapshot is taken;
// then both are read side by side while the stream goes on. Thread rule: the runner's thread, which
// keeps pumping the streams; what waits for servers is done on threads of its own.

#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "services/replicator/move/stream.hpp"

namespace pgsled::replicator {

// A position of a source's log and a snapshot of what had been committed by then.
struct source_point {
  management::connection walsender;    // the snapshot lasts as long as it
  std::string snapshot;
  moving::lsn at = 0;
};
result<source_point> make_point(const move_scene&, shard_number source);
trouble begin_at(management::connection&, const source_point&);   // a transaction that sees that
// A transaction on the destination that sees what is committed there now.
result<management::connection> destination_now(const move_scene&);

// What all comparisons of rows do with those they are to look at: as many conditions at a time as a
// statement may have.
trouble in_pieces(const moving::table&, const std::set<std::string>& rows,
                  const std::function<trouble(std::span<const std::string>)>& check);

template <class T>
bool has_come(const std::future<T>& of) {
  return of.wait_for(std::chrono::milliseconds(0)) == std::future_status::ready;
}

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

// Advances comparisons until none is left: `mark` now and then, so that streams come to the points
// they are held at also when nobody writes, and `pump` all the time.
template <class Comparison>
trouble finish_all(std::vector<std::unique_ptr<Comparison>> under_way,
                   const std::function<trouble()>& mark, const std::function<trouble()>& pump) {
  constexpr std::chrono::milliseconds between_marks{200};
  auto marked = std::chrono::steady_clock::time_point();
  while (!under_way.empty()) {
    if (std::chrono::steady_clock::now() - marked > between_marks) {
      if (auto error = mark()) return error;
      marked = std::chrono::steady_clock::now();
    }
    for (auto one = under_way.begin(); one != under_way.end();) {
      const auto same = (*one)->advance();
      if (!same) return same.error();
      one = *same ? under_way.erase(one) : std::next(one);
    }
    if (auto error = pump()) return error;
  }
  return std::nullopt;
}

// One table on both sides; the two connections say what they see.
trouble same_rows(management::connection& here, management::connection& there,
                  const moving::table&, const moving::selection&, shard_number source,
                  const std::set<std::string>* among);

}  // namespace pgsled::replicator
