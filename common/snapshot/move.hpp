#pragma once
// What a replicator that moves buckets asks of the router, and the answers: the JSON of
// kind::move_request and kind::move_answer (docs/formats/envelope.md). The router answers what it
// cannot do with kind::error:
//   3D000  the database is not known, or not sharded
//   55006  another job is registered; or, for "fence", this one is not
//   55P03  the fence was not reached within `wait_ms`; it is lifted again, try later
//   55000  `to` cannot take over from `database`, and why
//   57P03  the shard map, or which servers answer to a name, is not known yet
// All requests but "fence" can be repeated: the answer is the same.

#include <cstdint>
#include <string>
#include <vector>

#include "common/snapshot/snapshot.hpp"

namespace pgsled::snapshot {

struct move_request {
  // where is answered with move_where, the others with move_answer:
  //   begin    registers `job`, durably; DDL on the database is refused from then on
  //   fence    holds back statements on `buckets` and writes to tables that are on every shard, in
  //            all frontends; answered when no older transaction is open on the shards
  //   flipped  answered when all frontends use the map that was flipped to
  //   lift     gives the fence up; once answered, no flip under it can happen any more
  //   end      forgets `job`
  //   abort    asks whichever replicator runs `job` to undo it; 42704 when none does
  //   moves    what the other replicators say of their moves
  // With `to`, of a move of all of `database` to the servers of `to` (docs/formats/served_as.md):
  //   where    is answered with cluster_where
  //   begin    registers `job` on all shards of both; DDL on both is refused from then on
  //   fence    with `whole`: holds back every transaction of `database`; its name is for
  //            pgsled.hand_over() on shard 0 of cluster_where::from
  //   flipped, lift   whichever servers have the names by now: everybody is told so
  //   end      forgets `job` on all shards of both; with `lost` only on those that have the name,
  //            when the others are not reached
  //   cutover, roll_back, finish   tell whichever replicator runs `job`; 42704 when none does
  std::string do_;   // "do" in JSON
  std::string database, job;
  std::vector<std::uint32_t> buckets;  // fence: in the numbers of the map stored now
  std::int64_t wait_ms = 0;            // fence
  std::string to;                      // another database; empty: buckets move inside of one
  bool whole = false;                  // fence
  bool lost = false;                   // end
};

struct move_shard {                    // its primary, as the schema_admin user
  std::uint32_t number = 0;
  std::string host;
  std::uint16_t port = 5432;
  std::string database, user, password;
};

struct move_table {                    // an entry of sharded_tables
  std::string schema;                  // empty: any
  std::string name;                    // empty: any table that has the column
  std::string column;
  std::string data_type;               // bigint, varchar, uuid
  std::string hasher = "postgres";     // or sha1
  bool by_mapping = false;             // by list or range: in no bucket
  std::vector<placement::mapping> mapping = {};   // then: one
};

// How a table places its rows, as it is stored on the shards (docs/formats/shard_map.md).
struct placed_table {
  std::string schema, name, column, data_type, hasher;
  std::vector<placement::mapping> mapping;   // one, or none: by hash
};

struct move_tls {                      // as in [general] of pgdog.toml
  std::string mode = "prefer", ca_certificate, certificate, private_key;
};

struct move_manner {                   // how rows are moved
  std::uint32_t copies = 1;            // at once
  bool binary = true;                  // where types agree
  std::int64_t copy_rate = 0;          // bytes a second; 0: no limit
  std::int64_t slot_limit = std::int64_t{64} << 30;   // bytes of log
  std::string pg_dump = "pg_dump";     // that: whichever fits
  // Of a move to another cluster: when to raise the fence, when to change sides, and how long
  // traffic may be held (bytes of log, milliseconds).
  std::int64_t traffic_stop_threshold = 1'000'000, lag_threshold = 0;
  std::int64_t last_transaction_delay = 1'000, timeout = 30'000;
};

struct move_where {
  std::vector<move_shard> shards;      // of the file, in order; those in no bucket are joining
  std::uint64_t epoch = 0;             // of the stored map
  std::vector<std::uint32_t> buckets;  // bucket → shard
  std::vector<move_table> tables;
  move_tls tls;
  std::string moving;                  // the job that is registered; empty: none
  move_manner manner;
};

// The servers that answer to two databases now. One that is not sharded has one shard, and its
// bucket is 0 of [0]; its map has no epoch.
struct cluster_where {
  move_where from, to;                 // `database` and `to` of the request
  std::string moving;                  // the job that is registered for the two; empty: none
  std::uint64_t epoch = 0;             // of the names: pgsled.served_as; 0: never recorded
};

struct move_answer {
  std::uint64_t epoch = 0;             // begin, flipped: of the stored map; with `to` of the names
  std::string fence;                   // fence: its name, for flip_shard_map() or hand_over()
  std::vector<std::string> moves = {}; // moves: JSON objects as the control socket gives them
};

}  // namespace pgsled::snapshot
