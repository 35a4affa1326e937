#include "services/replicator/move/collisions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <thread>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using commit::statements::literal;

constexpr std::chrono::milliseconds long_wait{3'600'000};   // a sort of a large table
constexpr std::size_t at_once = 5000;                       // hashes kept of each shard
constexpr int most_looks = 5;                               // again, at what looks equal
constexpr std::chrono::milliseconds between_looks{20};

// Of one table: name, the key's expressions, the predicate. Two NULLs collide only where the index
// says so.
constexpr const char* indexes_query = R"sql(
SELECT i.relname, e.list, concat_ws(' AND ', pg_get_expr(x.indpred, x.indrelid),
  CASE WHEN to_jsonb(x) ->> 'indnullsnotdistinct' = 'true' THEN NULL
       ELSE 'num_nulls(' || e.list || ') = 0' END, 'true')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid, LATERAL (
  SELECT string_agg('(' || pg_get_indexdef(x.indexrelid, k, true) || ')', ', ' ORDER BY k) AS list
  FROM generate_series(1, x.indnkeyatts::integer) k) e
WHERE x.indrelid = {}::regclass AND x.indisunique AND NOT EXISTS (
  SELECT FROM pg_attribute a WHERE a.attrelid = x.indrelid AND a.attname = {}
    AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]))
ORDER BY 1)sql";

struct unique_index {
  std::string name, expressions, condition;
};

// The hashes of one shard's rows, in order.
class sorted_hashes {
 public:
  sorted_hashes(management::connection link, shard_number number, std::string rows)
      : shard(number), link_(std::move(link)), rows_(std::move(rows)) {}

  trouble begin(const unique_index& index) {
    hash_ = fmt::format("hashtextextended(ROW({})::text COLLATE \"C\", 0)", index.expressions);
    if (auto error = execute(link_, "BEGIN READ ONLY")) return error;
    if (auto error = execute(link_, fmt::format(
            "DECLARE pgsled_hashes NO SCROLL CURSOR FOR SELECT {} {} AND ({}) ORDER BY 1", hash_,
            rows_, index.condition))) {
      return error;
    }
    more_ = true;
    return next();
  }
  trouble end() { return execute(link_, "ROLLBACK"); }

  bool over() const { return at_ == read_.size(); }
  std::int64_t head() const { return read_[at_]; }
  trouble next() {
    if (++at_ < read_.size() || !more_) return std::nullopt;
    const auto rows = link_.query(fmt::format("FETCH {} FROM pgsled_hashes", at_once));
    if (!rows) return rows.error();
    more_ = rows->size() == at_once;
    read_.clear();
    at_ = 0;
    for (const auto& row : *rows) {
      std::int64_t hash = 0;
      std::from_chars(row[0].data(), row[0].data() + row[0].size(), hash);
      read_.push_back(hash);
    }
    return std::nullopt;
  }
  // A value with that hash, for people.
  result<std::string> value(const unique_index& index, std::int64_t hash) {
    return one_value(link_, fmt::format("SELECT ROW({})::text {} AND ({}) AND {} = {} LIMIT 1",
                                        index.expressions, rows_, index.condition, hash_, hash));
  }

  const shard_number shard;

 private:
  management::connection link_;
  std::string rows_, hash_;            // FROM … WHERE
  std::vector<std::int64_t> read_;
  std::size_t at_ = 0;
  bool more_ = false;
};

// A value that two shards have, and keep: one that clients take from one to the other just now is
// seen on both, because they are not read at one moment.
result<std::string> on_both(sorted_hashes& a, sorted_hashes& b, const unique_index& index,
                            std::int64_t hash) {
  for (int looks = 0;; ++looks) {
    const auto here = a.value(index, hash);
    if (!here) return here;
    const auto there = b.value(index, hash);
    if (!there) return there;
    if (here->empty() || *here != *there) return std::string();
    if (looks == most_looks) return here;
    std::this_thread::sleep_for(between_looks);
  }
}

// The first two shards whose rows are equal in the index.
result<std::string> collision(std::vector<sorted_hashes>& shards, const unique_index& index,
                              const moving::table& table) {
  for (auto& one : shards) {
    if (auto error = one.begin(index)) return tl::unexpected(std::move(*error));
  }
  std::string found;
  while (found.empty()) {
    sorted_hashes* least = nullptr;
    sorted_hashes* same = nullptr;
    for (auto& one : shards) {
      if (one.over()) continue;
      if (least == nullptr || one.head() < least->head()) {
        least = &one;
        same = nullptr;
      } else if (one.head() == least->head()) {
        same = &one;
      }
    }
    if (least == nullptr) break;
    if (same != nullptr) {
      const auto both = on_both(*least, *same, index, least->head());
      if (!both) return both;
      if (!both->empty()) {
        found = fmt::format("table {}: rows of shards {} and {} that will be on one shard are "
                            "equal in the unique index {}: {}", table.label(),
                            std::min(least->shard, same->shard),
                            std::max(least->shard, same->shard), index.name, *both);
      }
    }
    if (auto error = least->next()) return tl::unexpected(std::move(*error));
  }
  for (auto& one : shards) {
    if (auto error = one.end()) return tl::unexpected(std::move(*error));
  }
  return found;
}

// Who has rows that will be on the destination, and which.
std::vector<std::pair<shard_number, moving::selection>> who_has_rows(const move_scene& scene) {
  std::vector<std::pair<shard_number, moving::selection>> all;
  for (const auto source : scene.sources) all.emplace_back(source, scene.of_source(source));
  moving::selection stays;
  stays.buckets = scene.map.size();
  for (std::uint32_t bucket = 0; bucket < scene.map.size(); ++bucket) {
    if (scene.map[bucket] == scene.destination &&
        !std::binary_search(scene.moving.begin(), scene.moving.end(), bucket)) {
      stays.moving.push_back(bucket);
    }
  }
  if (!stays.moving.empty()) all.emplace_back(scene.destination, std::move(stays));
  return all;
}

result<std::vector<unique_index>> indexes_of(management::connection& link,
                                             const moving::table& table,
                                             const std::string& column) {
  const auto rows = link.query(fmt::format(fmt::runtime(indexes_query),
                                           literal(moving::in_sql(table)), literal(column)));
  if (!rows) return tl::unexpected(rows.error());
  std::vector<unique_index> to;
  for (const auto& row : *rows) to.push_back({row[0], row[1], row[2]});
  return to;
}

}  // namespace

result<std::vector<std::string>> unique_without(management::connection& link,
                                                const moving::table& table,
                                                const std::string& column) {
  const auto indexes = indexes_of(link, table, column);
  if (!indexes) return tl::unexpected(indexes.error());
  std::vector<std::string> names;
  for (const auto& one : *indexes) names.push_back(one.name);
  return names;
}

result<std::vector<std::string>> find_collisions(const move_scene& scene) {
  std::vector<std::string> found;
  const auto all = who_has_rows(scene);
  const auto tables = scene.tables.find(scene.sources.front());
  if (all.size() < 2 || tables == scene.tables.end()) return found;
  auto first = scene.open(scene.sources.front(), long_wait);
  if (!first) return tl::unexpected(first.error());
  for (const moving::table& table : tables->second) {
    // Without a home all rows come from the first source.
    if (scene.gets ? !table.home : table.whole()) continue;
    const auto& key = table.columns[scene.gets ? table.home->key : table.key].name;
    const auto indexes = indexes_of(*first, table, key);
    if (!indexes) return tl::unexpected(indexes.error());
    if (indexes->empty()) continue;
    std::vector<sorted_hashes> shards;
    for (const auto& [shard, rows] : all) {
      auto link = scene.open(shard, long_wait);
      if (!link) return tl::unexpected(link.error());
      shards.emplace_back(std::move(*link), shard,
                          fmt::format("FROM ONLY {} WHERE {}", moving::in_sql(table),
                                      moving::where_moving(table, rows)));
    }
    for (const unique_index& index : *indexes) {
      auto one = collision(shards, index, table);
      if (!one) return tl::unexpected(one.error());
      if (!one->empty()) found.push_back(std::move(*one));
    }
  }
  return found;
}

}  // namespace pgsled::replicator
