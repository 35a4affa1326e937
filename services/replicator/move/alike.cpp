#include "services/replicator/move/alike.hpp"

#include <fmt/format.h>

#include "common/placement/change.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::replicator {

namespace {

constexpr const char* references_query = R"sql(
SELECT k.conname, k.conrelid, k.confrelid,
  (SELECT string_agg(a.attname, U&'\001f' ORDER BY u.place) FROM unnest(k.conkey)
     WITH ORDINALITY u (number, place), pg_attribute a
     WHERE a.attrelid = k.conrelid AND a.attnum = u.number),
  (SELECT string_agg(a.attname, U&'\001f' ORDER BY u.place) FROM unnest(k.confkey)
     WITH ORDINALITY u (number, place), pg_attribute a
     WHERE a.attrelid = k.confrelid AND a.attnum = u.number)
FROM pg_constraint k WHERE k.contype = 'f' ORDER BY 1)sql";

// Rows with equal keys are on one shard. Lists may be written in another order.
bool placed_alike(const moving::placing& one, const moving::placing& other) {
  if (!one.mapping || !other.mapping) return one == other;
  return one.type == other.type && !placement::first_moved(*one.mapping, *other.mapping) &&
         !placement::first_moved(*other.mapping, *one.mapping);
}

}  // namespace

result<bool> hashes_alike(management::connection& link, const std::string& digest) {
  const auto hasher = digest.empty() ? placement::hasher::postgres : placement::hasher::sha1;
  using placement::key_type;
  constexpr std::size_t modulus = 6 * 1009;   // no power of two: a lost bit would show
  constexpr std::size_t power = 1 << 12;      // rows are found in another way by such
  const std::vector<std::pair<key_type, std::vector<std::string>>> samples{
      {key_type::bigint, {"0", "1", "-1", "42", "2147483648", "-2147483649",
                          "9223372036854775807", "-9223372036854775808"}},
      {key_type::uuid, {"00000000-0000-0000-0000-000000000000",
                        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                        "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
      {key_type::varchar, {"", "a", "twelve bytes", "grüße an alle, die hier sind", "日本語"}}};
  std::string sql;
  std::vector<std::string> wanted;
  for (const auto& [type, keys] : samples) {
    const auto name = type == key_type::bigint ? "bigint"
                      : type == key_type::uuid ? "uuid" : "text";
    const moving::placing by{type, hasher, digest, {}};
    for (const auto& key : keys) {
      const auto value = placement::normalise(type, placement::form::text, key,
                                              {placement::encoding::utf8, 0});
      if (!value) return tl::unexpected(value.error());
      const auto hash = placement::hash_of(hasher, *value);
      const auto literal = fmt::format("'{}'::{}", key, name);
      const auto add = [&](const std::string& expression, std::string is) {
        sql += (sql.empty() ? "SELECT " : ", ") + expression;
        wanted.push_back(std::move(is));
      };
      add(moving::bucket_in_sql(by, literal, modulus), std::to_string(hash % modulus));
      for (const std::size_t buckets : {modulus, power}) {
        const auto mine = static_cast<std::uint32_t>(hash % buckets);
        const auto next = static_cast<std::uint32_t>((mine + 1) % buckets);
        add(moving::moves_in_sql(by, literal, {buckets, {mine}}), "t");
        add(moving::moves_in_sql(by, literal, {buckets, {next}}), "f");
      }
    }
  }
  const auto rows = link.query(sql);
  if (!rows) return tl::unexpected(rows.error());
  return rows->at(0) == wanted;
}

result<std::vector<std::string>> references_apart(
    management::connection& link, const found_tables& tables,
    const std::function<bool(const found_table&)>& skipped) {
  const auto rows = link.query(references_query);
  if (!rows) return tl::unexpected(rows.error());
  const auto by_oid = [&](const std::string& oid) -> const found_table* {
    for (const auto& [label, one] : tables) {
      if (one.oid == oid) return &one;
    }
    return nullptr;
  };
  std::vector<std::string> apart;
  for (const auto& row : *rows) {
    const auto* from = by_oid(row[1]);
    const auto* to = by_oid(row[2]);
    if (from == nullptr || to == nullptr || to->it.whole()) continue;
    if (skipped(*to)) continue;
    bool together = false;
    if (!from->it.whole() && !skipped(*from)) {
      const auto mine = split_names(row[3]), theirs = split_names(row[4]);
      for (std::size_t i = 0; i < mine.size() && i < theirs.size(); ++i) {
        together = together || (mine[i] == from->it.columns[from->it.key].name &&
                                theirs[i] == to->it.columns[to->it.key].name);
      }
    }
    if (together && placed_alike(from->it.by, to->it.by)) continue;
    apart.push_back(fmt::format("foreign key {} of table {} refers to {} {}", row[0],
                                from->it.label(), to->it.label(),
                                together ? "whose rows are placed in another way"
                                         : "without the sharding keys of both"));
  }
  return apart;
}

}  // namespace pgsled::replicator
