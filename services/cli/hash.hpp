#pragma once
// `pgsled hash`: where a key lives. Pure but for the streams it is given.

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::cli {

struct hash_options {
  std::string type = "bigint";       // bigint, varchar or uuid
  std::string hasher = "postgres";   // postgres or sha1
  // Without `buckets` there are as many as shards; with both, bucket b lies on shard b mod shards
  // as in a map no move has changed. 0: not given.
  std::uint32_t shards = 0, buckets = 0;
};

struct key_place {
  std::uint64_t hash = 0;
  std::optional<std::uint64_t> bucket, shard;
};

// 22P02 when the value is none of the type, as PostgreSQL reads it, 22021 for a text that no
// database can hold; 22023 when the options do not fit together. Texts are hashed as they are: in
// the encoding of the server.
result<key_place> place(std::string_view value, const hash_options&);
std::string render(const key_place&);  // a line for each fact

// For each value up to `end` one line "hash bucket shard", "-" for what was not asked for, or
// "invalid". False when any was invalid; an error only for the options.
result<bool> place_all(std::istream& values, char end, const hash_options&, std::ostream& to);

}  // namespace pgsled::cli
