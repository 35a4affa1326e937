#include "common/placement/rule.hpp"

#include <algorithm>

#include "common/placement/hash.hpp"

namespace pgsled::placement {
namespace {

// Bytes that sort as the values do: a number with its sign bit turned round in network order.
std::string_view sortable(const value& from, std::array<char, 8>& scratch) {
  switch (from.type) {
    case key_type::bigint:
      store_be(scratch.data(), static_cast<std::uint64_t>(from.number) ^ (std::uint64_t{1} << 63));
      return {scratch.data(), scratch.size()};
    case key_type::uuid: return as_text(from.uuid);
    case key_type::varchar: return from.text;
  }
  return {};
}

// The file is UTF-8, and what it says of a text column is said of a database in UTF8 (others are
// converted by nobody, so their keys beyond ASCII match nothing in it).
std::optional<std::string> sortable(key_type type, const std::string& text) {
  const auto read = normalise(type, form::text, text, {encoding::utf8, 0});
  if (!read) return std::nullopt;
  std::array<char, 8> scratch;
  return std::string(sortable(*read, scratch));
}

// FNV-1a over fields with their ends.
class content_hash {
 public:
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) step(static_cast<std::uint8_t>(c));
  }
  void add(std::uint64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
      step(static_cast<std::uint8_t>(number >> shift));
    }
  }
  std::uint64_t value() const { return hash_ == 0 ? 1 : hash_; }

 private:
  void step(std::uint8_t byte) { hash_ = (hash_ ^ byte) * 1099511628211u; }
  std::uint64_t hash_ = 14695981039346656037u;
};

struct bounds {
  std::size_t index;
  std::optional<std::string> start, end;   // sortable; none: unbounded
};

bool before(const bounds& a, const bounds& b) {
  if (!a.start || !b.start) return !a.start && b.start;
  return *a.start < *b.start;
}

// `next` starts at or after `first` does.
bool overlap(const bounds& first, const bounds& next) {
  return !first.end || !next.start || *next.start < *first.end;
}

std::string must_be(key_type type) {
  switch (type) {
    case key_type::bigint: return "must be an integer that fits bigint";
    case key_type::uuid: return "must be a uuid";
    case key_type::varchar: return "must be a text without zero bytes";
  }
  return {};
}

}  // namespace

std::optional<hasher> hasher_of(std::string_view name) {
  for (const auto one : {hasher::postgres, hasher::sha1}) {
    if (name_of(one) == name) return one;
  }
  return std::nullopt;
}

std::string_view name_of(hasher which) {
  switch (which) {
    case hasher::postgres: return "postgres";
    case hasher::sha1: return "sha1";
  }
  return "";
}

std::string places_on(const mapping& from, std::uint32_t shard) {
  constexpr std::size_t most = 5;
  std::string all;
  std::size_t count = 0;
  const auto add = [&](const std::string& text) {
    if (++count > most) return;
    all += (all.empty() ? "" : ", ") + text;
  };
  for (const auto& [text, where] : from.list) {
    if (where == shard) add(text);
  }
  for (const auto& one : from.ranges) {
    if (one.shard != shard) continue;
    add(one.has_start ? "from " + one.start + (one.has_end ? " to below " + one.end : "")
                      : "below " + one.end);
  }
  if (from.fallback == static_cast<std::int64_t>(shard)) add("what no list and no range names");
  if (count > most) all += ", and " + std::to_string(count - most) + " more";
  return all;
}

std::uint64_t id_of(const mapping& from) {
  content_hash hash;
  hash.add(from.type);
  hash.add(from.list.size());
  for (const auto& [text, shard] : from.list) {
    hash.add(text);
    hash.add(shard);
  }
  hash.add(from.ranges.size());
  for (const auto& one : from.ranges) {
    hash.add(one.start);
    hash.add(one.end);
    hash.add(std::uint64_t{one.has_start} << 1 | std::uint64_t{one.has_end});
    hash.add(one.shard);
  }
  hash.add(static_cast<std::uint64_t>(from.fallback));
  return hash.value();
}

std::vector<mapping_flaw> flaws_of(const mapping& from) {
  std::vector<mapping_flaw> found;
  const auto type = key_type_of(from.type);
  if (!type) return {{false, 0, "is for an unknown type"}};
  std::vector<std::pair<std::string, std::size_t>> values;
  for (std::size_t i = 0; i < from.list.size(); ++i) {
    if (auto key = sortable(*type, from.list[i].first)) {
      values.emplace_back(std::move(*key), i);
    } else {
      found.push_back({true, i, must_be(*type)});
    }
  }
  std::sort(values.begin(), values.end());
  for (std::size_t i = 1, first = 0; i < values.size(); ++i) {
    if (values[i].first != values[first].first) first = i;
    const auto &one = from.list[values[i].second], &other = from.list[values[first].second];
    if (one.second == other.second) continue;
    found.push_back({true, values[i].second,
                     "\"" + one.first + "\" belongs to shard " + std::to_string(other.second) +
                         " already",
                     values[first].second});
  }
  std::vector<bounds> all;
  for (std::size_t i = 0; i < from.ranges.size(); ++i) {
    const auto& one = from.ranges[i];
    bounds b{i, std::nullopt, std::nullopt};
    if (one.has_start) b.start = sortable(*type, one.start);
    if (one.has_end) b.end = sortable(*type, one.end);
    if ((one.has_start && !b.start) || (one.has_end && !b.end)) {
      found.push_back({false, i, "start and end " + must_be(*type)});
    } else if (!one.has_start && !one.has_end) {
      found.push_back({false, i, "needs start, end or both"});
    } else if (b.start && b.end && *b.start >= *b.end) {
      found.push_back({false, i, "is empty: start must be less than end"});
    } else {
      all.push_back(std::move(b));
    }
  }
  std::stable_sort(all.begin(), all.end(), before);
  // By start: one that reaches beyond its neighbour stays the one to compare with.
  for (std::size_t i = 1, widest = 0; i < all.size(); ++i) {
    if (overlap(all[widest], all[i])) {
      const auto [earlier, later] = std::minmax(all[widest].index, all[i].index);
      found.push_back({false, later, "overlaps another range", earlier});
    }
    if (all[widest].end && (!all[i].end || *all[widest].end < *all[i].end)) widest = i;
  }
  return found;
}

mapping_index::mapping_index(const mapping& from) : id_(from.id), type_(key_type_of(from.type)) {
  if (!type_ || !flaws_of(from).empty()) {
    type_.reset();
    return;
  }
  for (const auto& [text, shard] : from.list) list_.emplace_back(*sortable(*type_, text), shard);
  std::sort(list_.begin(), list_.end());
  for (const auto& one : from.ranges) {
    ranges_.push_back({one.has_start ? *sortable(*type_, one.start) : "",
                       one.has_end ? *sortable(*type_, one.end) : "", one.has_start, one.has_end,
                       one.shard});
  }
  std::sort(ranges_.begin(), ranges_.end(), [](const range& a, const range& b) {
    return a.has_start && b.has_start ? a.start < b.start : !a.has_start && b.has_start;
  });
  if (from.fallback >= 0) fallback_ = static_cast<std::uint32_t>(from.fallback);
}

std::optional<std::uint32_t> mapping_index::find(const value& key) const {
  if (key.type != type_) return std::nullopt;
  std::array<char, 8> scratch;
  const auto bytes = sortable(key, scratch);
  const auto listed = std::lower_bound(list_.begin(), list_.end(), bytes,
                                       [](const auto& a, auto b) { return a.first < b; });
  if (listed != list_.end() && listed->first == bytes) return listed->second;
  // The last one that starts at or before the key is the only one that may hold it.
  auto above = std::upper_bound(ranges_.begin(), ranges_.end(), bytes, [](auto b, const range& a) {
    return a.has_start && b < a.start;
  });
  if (above != ranges_.begin()) {
    --above;
    if (!above->has_end || bytes < above->end) return above->shard;
  }
  return fallback_;
}

std::uint64_t hash_of(hasher how, const value& key) {
  const bool sha1 = how == hasher::sha1;
  switch (key.type) {
    case key_type::bigint: return sha1 ? sha1_bigint(key.number) : hash_bigint(key.number);
    case key_type::uuid: return sha1 ? sha1_uuid(key.uuid) : hash_uuid(key.uuid);
    case key_type::varchar: return sha1 ? sha1_text(key.text) : hash_text(key.text);
  }
  return 0;
}

}  // namespace pgsled::placement
