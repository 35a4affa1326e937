#pragma once
// What a replicator that moves buckets asks of the router, and the answers: the JSON of
// kind::move_request and kind::move_answer (docs/formats/envelope.md). The router answers what it
// cannot do with kind::error:
//   3D000  the database is not known, or not sharded
//   55006  another job is registered; or, for "fence", this one is not
//   55P03  the fence was not reached within `wait_ms`; it is lifted again, try later
//   57P03  the shard map is not known yet
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
  std::string do_;   // "do" in JSON
  std::string database, job;
  std::vector<std::uint32_t> buckets;  // fence: in the numbers of the map stored now
  std::int64_t wait_ms = 0;            // fence
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
  bool by_mapping = false;             // by list or range: in no bucket, does not move
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

struct move_answer {
  std::uint64_t epoch = 0;             // begin, flipped: of the stored map
  std::string fence;                   // fence: its name, for pgsled.flip_shard_map()
  std::vector<std::string> moves = {}; // moves: JSON objects as the control socket gives them
};

}  // namespace pgsled::snapshot
