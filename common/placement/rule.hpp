#pragma once
// rule: how one sharded table places its rows: key type, hasher or mapping. A value goes to
//   hash    shard = map[hash mod B], the map being stored on the shards;
//   mapping the shard of the list that names it, else of the range it lies in, else the default.
// Ranges hold start <= value < end, either bound may be absent; numbers and uuids in their order,
// texts by their bytes. Pure; finding allocates nothing. Thread rule: a mapping_index is constant.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/placement/value.hpp"

namespace pgsled::placement {

// Never change or reuse a value.
enum class hasher : std::uint8_t { postgres = 1, sha1 = 2 };
std::optional<hasher> hasher_of(std::string_view name);
std::string_view name_of(hasher);

struct rule {
  key_type type = key_type::bigint;
  placement::hasher hasher = placement::hasher::postgres;  // without meaning for a mapping
  std::uint64_t mapping = 0;                               // id of the mapping; 0: by hash
  bool operator==(const rule&) const = default;
};

// A mapping as it is written and as it travels. Values as text: digits, uuid, the text itself.
struct mapping_range {
  std::string start, end;
  bool has_start = false, has_end = false;
  std::uint32_t shard = 0;
  bool operator==(const mapping_range&) const = default;
};
struct mapping {
  std::uint64_t id = 0;             // id_of() it
  std::string type;                 // name_of(key_type)
  std::vector<std::pair<std::string, std::uint32_t>> list;
  std::vector<mapping_range> ranges;
  std::int64_t fallback = -1;       // shard of what is in neither; -1: there is none
  bool operator==(const mapping&) const = default;
};

// What a mapping places on one shard, for people: some values, ranges, the others. Empty: nothing.
std::string places_on(const mapping&, std::uint32_t shard);

// Names the content: the same in every process, another one for every other mapping. Never 0.
std::uint64_t id_of(const mapping&);

// What is wrong with a mapping, by the place of the entry.
struct mapping_flaw {
  bool in_list = false;             // else in ranges
  std::size_t index = 0;
  std::string text;
  std::optional<std::size_t> other = {};  // the entry of the same sort that it contradicts
};
std::vector<mapping_flaw> flaws_of(const mapping&);

// A mapping made ready for finding.
class mapping_index {
 public:
  explicit mapping_index(const mapping&);   // what is flawed is left out: nothing is placed by it
  std::uint64_t id() const { return id_; }
  // None: the mapping names no shard for the value, or is of another type.
  std::optional<std::uint32_t> find(const value&) const;

 private:
  struct range {
    std::string start, end;
    bool has_start, has_end;
    std::uint32_t shard;
  };
  std::uint64_t id_;
  std::optional<key_type> type_;
  // Values as bytes that sort as the values do.
  std::vector<std::pair<std::string, std::uint32_t>> list_;   // sorted
  std::vector<range> ranges_;                                 // sorted by start, without overlap
  std::optional<std::uint32_t> fallback_;
};

std::uint64_t hash_of(hasher, const value&);

inline std::uint32_t shard_of(std::uint64_t hash, std::span<const std::uint32_t> bucket_map) {
  return bucket_map[hash % bucket_map.size()];
}

}  // namespace pgsled::placement
