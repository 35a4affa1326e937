#pragma once
// move_scene: what a move works on: the shards and connections to them, the tables that take part,
// the buckets. Also the table pgsled.job, where a move is stored on every shard, by which whoever
// comes later finds and finishes it. Thread rule: the runner's thread; while that has several shards
// asked at once, theirs may read it, and each uses other links.
//
// A row of pgsled.job names its runner. Every transaction of a runner that changes rows or the map
// holds that row against another runner's taking it over (hold_job), so that of two runners, one of
// which was thought dead, only one can change anything.

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/management/connection.hpp"
#include "common/moving/goal.hpp"
#include "common/moving/table.hpp"
#include "common/snapshot/move.hpp"

namespace pgsled::replicator {

using trouble = std::optional<pg_error>;
using shard_number = std::uint32_t;

struct move_scene {
  std::string job, database, runner;
  const std::atomic<bool>* stop = nullptr;       // the process ends, or the job is aborted

  snapshot::move_where where;
  moving::bucket_map map;                        // as stored
  moving::goal goal;                             // of the job; this is one move of it
  std::uint32_t round = 1;                       // which one
  std::vector<std::uint32_t> moving;             // the buckets that move
  shard_number destination = 0;
  std::vector<shard_number> sources;             // those that own buckets which move, in order
  // Of a move between clusters: what the destination gets of every source, and what tells its
  // streams from those to others.
  std::optional<moving::selection> gets;
  std::string tag;
  // The tables that take part, as each source has them. Those that are on every shard are
  // with the first source alone.
  std::map<shard_number, std::vector<moving::table>> tables;
  // What they were when the move began, of each shard: by label their number there and their file.
  std::map<shard_number, std::map<std::string, std::pair<std::string, std::string>>> began_with;
  // To each shard, from before the first row is copied until the flip, so that a server that has
  // lost what was not yet on its disk has lost this, too.
  std::map<shard_number, management::connection> links;

  management::connection& link(shard_number shard) { return links.at(shard); }
  // The destination owns other rows, and the tables that are on every shard are there.
  bool destination_owns() const;
  std::string application() const { return "pgsled move " + job + " " + runner; }
  std::string slot(shard_number source) const;   // also the origin on the destination
  std::string publication() const { return "pgsled_" + job; }
  std::string cleaner(shard_number source) const;   // origin of the clean-up
  moving::selection of_source(shard_number) const;  // the moving buckets that it owns

  result<management::connection> open(shard_number, std::chrono::milliseconds query_timeout,
                                      bool replication = false) const;
  trouble open_all();
};

trouble execute(management::connection&, const std::string& sql);
// The first field of the first row; empty when there is none.
result<std::string> one_value(management::connection&, const std::string& sql);

// What makes schema pgsled ready for moves; idempotent.
const char* job_schema();
result<bool> has_jobs(management::connection&);   // whether that was ever run there
const char* job_columns();                 // whether it is: a query for t or f
// Of a job that is taken over: whether there are jobs on this server, ready for this version. Ends
// what other runners have open there for it.
result<bool> claim_job(management::connection&, const std::string& job,
                       const std::string& application);
std::string hold_job(const move_scene&);   // a statement: 57P01 unless it is still this runner's

std::string text_array(const std::vector<std::string>&);   // as a literal

}  // namespace pgsled::replicator
