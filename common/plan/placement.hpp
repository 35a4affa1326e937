#pragma once
// Placement: key value → hash → bucket → shard, as PostgreSQL's PARTITION BY HASH.
// Algorithm: Bob Jenkins' lookup3 as in PostgreSQL's hashfn.c, seed HASH_PARTITION_SEED.

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "common/base/bytes.hpp"

namespace pgsled::plan {

std::uint64_t hash_bigint(std::int64_t value);
std::uint64_t hash_text(std::string_view bytes);        // varchar, text
std::uint64_t hash_uuid(std::span<const std::uint8_t, 16> bytes);

// One normaliser for literals, text parameters and COPY fields: as PostgreSQL's int8in reads them
// (surrounding white space, sign, decimal digits; of PostgreSQL 16's forms hex, octal, binary and
// underscores are refused because older servers refuse them). nullopt: cannot be normalised.
std::optional<std::int64_t> bigint_from_text(std::string_view text);
// Binary parameters of int2, int4 and int8 by length; anything else nullopt.
std::optional<std::int64_t> bigint_from_binary(byte_span bytes);

inline std::uint32_t shard_of(std::uint64_t hash, std::span<const std::uint32_t> bucket_map) {
  return bucket_map[hash % bucket_map.size()];
}

}  // namespace pgsled::plan
