#pragma once
// shard_map: which shard owns which bucket, as stored on the shards themselves. The file never
// changes placement once a map is stored. Pure: what was read from each shard goes in, what is
// true and what must be written comes out. The formats are in docs/formats/shard_map.md.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pgsled::router {

struct stored_map {
  std::uint64_t epoch = 0;             // of the map, counts up with every change of it
  std::uint32_t shard = 0;             // which shard of the database this server is
  std::vector<std::uint32_t> buckets;  // bucket → shard
  std::string job = {};                // that moves buckets now; empty: none
  std::string fence = {};              // under which that job may change the map; empty: none
  bool operator==(const stored_map&) const = default;
};

struct shard_reading {                 // one per shard of the file, in order
  bool reached = false;
  std::string problem;                 // when not reached: why
  std::optional<stored_map> map;       // when reached: what is stored, if anything
};

struct map_decision {
  enum class outcome {
    known,      // `buckets` holds
    unknown,    // not all shards were reached and none has a map: try again
    refused,    // `reason`
  };
  outcome what = outcome::unknown;
  std::vector<std::uint32_t> buckets;
  std::uint64_t epoch = 0;
  std::string job;                     // the move that is registered, if any
  std::string reason;
  bool complete = false;               // every shard was reached: nothing is left to be done later
  std::vector<std::uint32_t> write_to; // shards on which it is missing or older
};

// A shard that is not reached might hold a later map when a move is registered: then nothing is
// known until it is.
map_decision decide(const std::string& database, const std::vector<shard_reading>&);

// Array literal of PostgreSQL, {0,1,2}, both ways; nullopt on anything else or on more than 65536.
std::string buckets_to_text(const std::vector<std::uint32_t>&);
std::optional<std::vector<std::uint32_t>> buckets_from_text(std::string_view);

// The statements that make schema pgsled ready; idempotent.
const char* shard_map_schema();

}  // namespace pgsled::router
