#include "services/cli/hash.hpp"

#include <fmt/format.h>

#include <istream>
#include <ostream>

#include "common/placement/rule.hpp"

namespace pgsled::cli {
namespace {

struct chosen {
  placement::key_type type;
  placement::hasher hasher;
};

result<chosen> check(const hash_options& options) {
  const auto type = placement::key_type_of(options.type);
  if (!type) {
    return failure("22023", fmt::format("unknown type \"{}\"", options.type),
                   "It is bigint, varchar or uuid.");
  }
  const auto hasher = placement::hasher_of(options.hasher);
  if (!hasher) {
    return failure("22023", fmt::format("unknown hasher \"{}\"", options.hasher),
                   "It is postgres or sha1.");
  }
  if (options.buckets != 0 && options.shards != 0 && options.buckets % options.shards != 0) {
    return failure("22023", fmt::format("{} buckets are no multiple of {} shards",
                                        options.buckets, options.shards));
  }
  return chosen{*type, *hasher};
}

result<key_place> place_one(std::string_view value, const chosen& how,
                            const hash_options& options) {
  const auto read = placement::normalise(how.type, placement::form::text, value,
                                         {placement::encoding::utf8, 0});
  if (!read) return tl::unexpected(read.error());
  key_place to{placement::hash_of(how.hasher, *read), {}, {}};
  const std::uint64_t count = options.buckets != 0 ? options.buckets : options.shards;
  if (count != 0) to.bucket = to.hash % count;
  if (options.shards != 0) to.shard = *to.bucket % options.shards;
  return to;
}

std::string or_dash(const std::optional<std::uint64_t>& number) {
  return number ? std::to_string(*number) : "-";
}

}  // namespace

result<key_place> place(std::string_view value, const hash_options& options) {
  const auto how = check(options);
  if (!how) return tl::unexpected(how.error());
  return place_one(value, *how, options);
}

std::string render(const key_place& of) {
  auto text = fmt::format("hash {0} (0x{0:016x})\n", of.hash);
  if (of.bucket) text += fmt::format("bucket {}\n", *of.bucket);
  if (of.shard) text += fmt::format("shard {}\n", *of.shard);
  return text;
}

result<bool> place_all(std::istream& values, char end, const hash_options& options,
                       std::ostream& to) {
  const auto how = check(options);
  if (!how) return tl::unexpected(how.error());
  bool all_good = true;
  for (std::string value; std::getline(values, value, end);) {
    const auto where = place_one(value, *how, options);
    if (where) {
      to << where->hash << ' ' << or_dash(where->bucket) << ' ' << or_dash(where->shard) << '\n';
    } else {
      to << "invalid\n";
      all_good = false;
    }
  }
  return all_good;
}

}  // namespace pgsled::cli
