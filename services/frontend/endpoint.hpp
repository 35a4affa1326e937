#pragma once
// endpoint: what one user of one database can reach, made from a snapshot. Clients hold it by
// shared pointer; a newer snapshot makes new ones and marks the old ones stale.

#include <memory>
#include <string>
#include <vector>

#include "common/placement/rule.hpp"
#include "common/snapshot/snapshot.hpp"

namespace pgsled::frontend {

class local_pool;

enum class pool_mode : std::uint8_t { transaction, session, statement };
// How what has written on several shards commits: on all or none; on one after the other; not.
enum class commit_mode : std::uint8_t { atomic, one_by_one, refused };

// Where the rows of a database are now. One object for all of its endpoints, old ones too: a
// transaction that outlives a snapshot must not place a key by the map it began with.
struct ownership {
  std::vector<std::uint32_t> bucket_map;  // empty: not known
  std::uint64_t map_epoch = 0;
  bool moving = false;                    // the map may change while the router is not heard
  // Up: who begins a transaction waits before it touches these buckets or writes to all shards.
  std::string fence;
  std::vector<bool> fenced;               // by bucket
  std::string held;                       // why no transaction may begin; empty: they may
  bool leaving = false;                   // without the router nothing may run, begun or not
  bool guarded = false;                   // one of the two
  std::uint64_t served = 0;               // of the servers that have its name

  bool is_fenced(std::size_t bucket) const { return bucket < fenced.size() && fenced[bucket]; }
};

struct endpoint {
  snapshot::user user;
  snapshot::database database;
  pool_mode mode = pool_mode::transaction;
  commit_mode commits = commit_mode::atomic;            // transactions of the client's
  commit_mode commits_statement = commit_mode::atomic;  // single statements for all shards
  bool planned = false;  // statements need a plan: several shards, or dispatch = "always"
  bool sharded = false;  // more than one shard
  bool stale = false;
  std::vector<local_pool*> pools;  // by shard; null: none configured
  std::vector<std::shared_ptr<local_pool>> alive;  // keeps them while a client may look here
  // Shards that own rows. One that is only joining takes part in DDL and answers nothing.
  std::vector<std::uint32_t> serving;
  std::shared_ptr<const ownership> owners;  // never null
  // Lists and ranges of the database's tables, one for all of its users; never null.
  std::shared_ptr<const std::vector<placement::mapping_index>> mappings;
};
using endpoint_ref = std::shared_ptr<endpoint>;

}  // namespace pgsled::frontend
