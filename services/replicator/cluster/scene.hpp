#pragma once
// cluster_scene: what a move of a whole database to other servers works on: the shards of both
// sides and connections to them, and for each shard that gets rows a move_scene whose sources are
// all shards of the other side (numbers 0, 1, …) and whose destination has the number behind them.
// Which side answers to the contested name is what the servers say (pgsled.served_as), nothing
// else. Thread rule: the runner's thread.
//
// The row of pgsled.job is on every shard of both sides: `side` (old: has the rows at first, new)
// and `shard` say which one it is, `names` the epoch of the names when the job began.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "common/moving/cluster_job.hpp"
#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

enum class cluster_side : std::uint8_t { old, fresh };
constexpr cluster_side other_side(cluster_side of) {
  return of == cluster_side::old ? cluster_side::fresh : cluster_side::old;
}

struct cluster_scene {
  std::string job, database, to, runner;
  const std::atomic<bool>* stop = nullptr;

  struct one_side {
    snapshot::move_where where;
    std::vector<management::connection> links;   // by shard
    // As destinations: of the rows of the other side.
    std::vector<std::unique_ptr<move_scene>> gets;
    std::string label(std::size_t shard) const;  // for people
    moving::selection rows_of(shard_number) const;   // by the placement of this side
  };
  std::array<one_side, 2> sides;
  // The side that is left out, because its servers are not reached: the one without the name.
  std::optional<cluster_side> lost;
  std::string registered;                        // the job, as the router says; empty: none
  std::uint64_t names = 0;                       // epoch of the names when the job began
  bool automatic_cutover = false;

  one_side& side(cluster_side of) { return sides[static_cast<std::size_t>(of)]; }
  const one_side& side(cluster_side of) const { return sides[static_cast<std::size_t>(of)]; }
  std::string application() const { return "pgsled move " + job + " " + runner; }

  // What the router says of the two names: `from` answers to `database` now.
  void set(snapshot::cluster_where, bool swapped);
  trouble open_all();
  trouble open_side(cluster_side);
  // Scenes without tables and connections, from what is known of the shards.
  void make_scenes();
  // A connection of each scene of that side to its destination, from before the first row comes
  // until the flip, so that a server that has lost rows since has lost this, too.
  trouble open_destinations(cluster_side);
  // On all shards of both that are not left out.
  trouble on_all(const std::string& sql);
};

struct cluster_found {
  moving::cluster_stored what = moving::cluster_stored::nothing;
  std::uint32_t runs = 0;              // how often it was begun by runners that are gone
};

// Takes the job over from whoever had it, on all shards, and says how far it is. Sets which side is
// which, and what is stored of the job. All of its other connections are ended.
result<cluster_found> adopt(cluster_scene&);
// The row on all shards. Of a job that is begun again it is made new.
trouble record_cluster_job(cluster_scene&, std::uint32_t runs);

}  // namespace pgsled::replicator
