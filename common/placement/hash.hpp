#pragma once
// The hash functions of sharding keys. Pure, no failure, no allocation (sha1: OpenSSL's own).
//
// hash_*: as PostgreSQL's PARTITION BY HASH, so that partitions can become shards. Algorithm: Bob
// Jenkins' lookup3 as in PostgreSQL's hashfn.c, seed HASH_PARTITION_SEED. 64 bits.
// sha1_*: PgDog's hasher "sha1", SHA-1 over the decimal digits, the 16 bytes or the text; the last
// four bytes of the digest as an integer in network order. 32 bits.

#include <cstdint>
#include <span>
#include <string_view>

#include "common/base/bytes.hpp"

namespace pgsled::placement {

std::uint64_t hash_bigint(std::int64_t value);   // smallint, integer, bigint alike
std::uint64_t hash_text(std::string_view bytes);        // varchar, text
std::uint64_t hash_uuid(std::span<const std::uint8_t, 16> bytes);

std::uint64_t sha1_bigint(std::int64_t value);
std::uint64_t sha1_text(std::string_view bytes);
std::uint64_t sha1_uuid(std::span<const std::uint8_t, 16> bytes);

}  // namespace pgsled::placement
