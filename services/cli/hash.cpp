#include "services/cli/hash.hpp"

#include <fmt/format.h>

#include "common/placement/rule.hpp"

namespace pgsled::cli {
namespace {

std::optional<std::uint64_t> hash_of(std::string_view value, std::string_view type) {
  const auto read = placement::normalise(*placement::key_type_of(type), placement::form::text,
                                         value, {placement::encoding::utf8, 0});
  return read ? std::optional(placement::hash_of(placement::hasher::postgres, *read))
              : std::nullopt;
}

}  // namespace

result<key_place> place(std::string_view value, std::string_view type, std::uint32_t shards,
                        std::uint32_t buckets) {
  if (type != "bigint" && type != "varchar" && type != "uuid") {
    return failure("22023", fmt::format("unknown type \"{}\"", type),
                   "It is bigint, varchar or uuid.");
  }
  if (buckets != 0 && shards != 0 && buckets % shards != 0) {
    return failure("22023",
                   fmt::format("{} buckets are no multiple of {} shards", buckets, shards));
  }
  const auto hash = hash_of(value, type);
  if (!hash) {
    return failure("22P02", fmt::format("invalid input for type {}: \"{}\"", type, value));
  }
  key_place to{*hash, {}, {}};
  const std::uint64_t count = buckets != 0 ? buckets : shards;
  if (count != 0) to.bucket = to.hash % count;
  if (shards != 0) to.shard = *to.bucket % shards;
  return to;
}

std::string render(const key_place& of) {
  auto text = fmt::format("hash {0} (0x{0:016x})\n", of.hash);
  if (of.bucket) text += fmt::format("bucket {}\n", *of.bucket);
  if (of.shard) text += fmt::format("shard {}\n", *of.shard);
  return text;
}

}  // namespace pgsled::cli
