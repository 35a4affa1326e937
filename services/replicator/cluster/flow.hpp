#pragma once
// cluster_flow: all rows of one side on their way to the other one: a stream from each of its
// shards to each of the other's, and the comparisons. Thread rule: the runner's thread, which also
// calls `watch`.

#include <functional>
#include <memory>
#include <vector>

#include "services/replicator/cluster/compare.hpp"
#include "services/replicator/cluster/scene.hpp"
#include "services/replicator/move/copy.hpp"
#include "services/replicator/move/stream.hpp"

namespace pgsled::replicator {

class cluster_flow {
 public:
  static constexpr std::size_t compared_at_once = 2;   // shards

  // `watch` is called all the time while something is waited for; its error ends that.
  cluster_flow(cluster_scene&, cluster_side to, std::function<trouble()> watch);

  trouble make_slots();                // and origins; then copy() under their snapshots
  trouble resume();                    // slots and origins that are there: the streams have begun
  trouble begin();                     // after make_slots()
  // After the copy of one shard: rows that two sources had, each under its snapshot, because clients
  // took them from one to the other meanwhile. One of each stays, the others wait for the streams.
  // False when there are none.
  result<bool> set_doubles_aside(std::size_t destination);
  std::vector<source_snapshot> snapshots(std::size_t destination) const;

  trouble pump(std::chrono::milliseconds wait);
  // Now and then a marker: where nothing happens slots would hold back what other databases write.
  trouble move_on();
  // Applies everything up to new markers. 55P03 when it takes longer than `patience`.
  trouble follow_to_marker(std::chrono::milliseconds patience);
  trouble catch_up();                  // until little is left
  // All rows once, then those that were touched meanwhile, until few are left for the fence.
  trouble compare();
  // What was touched is compared before it is too much to be kept.
  trouble compare_if_much();
  // Under the fence: what is older than it, and then everything.
  trouble drain(std::chrono::milliseconds patience);
  // Under the fence both sides stand still; what has been touched since the comparison is compared.
  trouble verify();
  trouble sequences();
  // Everything that was applied is on the destinations' disks.
  trouble flush();
  trouble validate();                  // foreign keys, while the streams go on

  cluster_side to() const { return to_; }
  cluster_side from() const { return other_side(to_); }
  std::int64_t behind() const;
  std::int64_t changes() const;
  std::int64_t waited() const;         // rows that had no place at first
  struct flowing {
    std::size_t destination;
    std::unique_ptr<move_stream> stream;
  };
  const std::vector<flowing>& streams() const { return streams_; }

 private:
  move_scene& scene(std::size_t destination) { return *scene_.side(to_).gets.at(destination); }
  trouble write_markers();
  trouble place_all();                 // under the fence: nothing waits any more
  trouble compare_once(bool all);
  trouble compare_some(std::size_t first, std::size_t end, bool all);
  void add_streams();

  cluster_scene& scene_;
  cluster_side to_;
  std::function<trouble()> watch_;
  std::vector<flowing> streams_;
  std::string marker_;
  std::uint64_t markers_ = 0;
  std::chrono::steady_clock::time_point marked_{};
  bool compared_ = false;              // all rows once; since then the streams know what changed
};

}  // namespace pgsled::replicator
