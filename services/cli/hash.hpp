#pragma once
// `pgsled hash`: where a key lives. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::cli {

struct key_place {
  std::uint64_t hash = 0;
  std::optional<std::uint64_t> bucket, shard;
};

// Type bigint, varchar or uuid, as PostgreSQL reads them. Without `buckets` there are as many as
// shards; with both, bucket b lies on shard b mod shards as in a map no move has changed. 0: not
// given. 22P02 when the value is none of the type, 22023 when the numbers do not fit.
result<key_place> place(std::string_view value, std::string_view type, std::uint32_t shards,
                        std::uint32_t buckets);
std::string render(const key_place&);  // a line for each fact

}  // namespace pgsled::cli
