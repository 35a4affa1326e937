#include "services/replicator/cluster/check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "common/placement/rule.hpp"
#include "services/replicator/cluster/flow.hpp"
#include "services/replicator/move/alike.hpp"
#include "services/replicator/move/collisions.hpp"
#include "services/replicator/move/rights.hpp"

namespace pgsled::replicator {

namespace {

constexpr std::array both{cluster_side::old, cluster_side::fresh};

constexpr std::size_t most_streams = 256;

constexpr const char* server_query = R"sql(
SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
  current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
  current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
  current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_origin),
  current_setting('server_encoding'), pg_is_in_recovery(),
  (SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE prepared < now() - interval '30 s'),
  (SELECT string_agg(pid::text, ', ') FROM pg_stat_activity WHERE backend_xid IS NOT NULL
    AND xact_start < now() - interval '60 s'))sql";

// What no stream carries and no comparison sees.
constexpr const char* left_query = R"sql(
SELECT (SELECT count(*) FROM pg_largeobject_metadata),
  (SELECT string_agg(format('%I.%I', schemaname, sequencename), ', ') FROM pg_sequences
    WHERE increment_by < 0),
  (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_extension e, unnest(e.extconfig) t
    JOIN pg_class c ON c.oid = t WHERE c.relkind = 'r'))sql";

// The number in the parentheses behind a type's name; none: there are none.
std::optional<int> length_of(std::string_view type) {
  const auto open = type.find('(');
  if (open == std::string_view::npos) return std::nullopt;
  return std::stoi(std::string(type.substr(open + 1)));
}

class cluster_checker {
 public:
  cluster_checker(cluster_scene& scene, bool resumed) : scene_(scene), resumed_(resumed) {}

  result<move_report> run() {
    for (const auto of : both) {
      if (auto error = read(of)) return tl::unexpected(std::move(*error));
      rules(of);
      for (std::size_t shard = 0; !resumed_ && shard < scene_.side(of).links.size(); ++shard) {
        if (auto error = server(of, shard)) return tl::unexpected(std::move(*error));
      }
      for (std::size_t shard = 0; shard < scene_.side(of).links.size(); ++shard) {
        if (auto error = left_behind(of, shard)) return tl::unexpected(std::move(*error));
      }
    }
    same_servers();
    const auto streams = scene_.side(cluster_side::old).links.size() *
                         scene_.side(cluster_side::fresh).links.size();
    if (streams > most_streams) {
      missing("{} streams are needed, one from each shard to each new one, and at most {} are "
              "followed by a job", streams, most_streams);
    }
    if (auto error = digests()) return tl::unexpected(std::move(*error));
    if (auto error = tables()) return tl::unexpected(std::move(*error));
    if (resumed_) return std::move(report_);
    if (auto error = together()) return tl::unexpected(std::move(*error));
    if (auto error = empty()) return tl::unexpected(std::move(*error));
    return std::move(report_);
  }

 private:
  template <class... Args>
  void missing(fmt::format_string<Args...> text, Args&&... args) {
    report_.missing.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) {
    report_.warnings.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  const std::string& name(cluster_side of) const {
    return of == cluster_side::old ? scene_.database : scene_.to;
  }
  std::string at(cluster_side of, std::size_t shard) const {
    return fmt::format("\"{}\" {}", name(of), scene_.side(of).label(shard));
  }

  // Tables as they are on each shard of one side, placed as the *other* one's rows will be.
  trouble read(cluster_side of) {
    auto& found = found_[static_cast<std::size_t>(of)];
    for (auto& link : scene_.side(of).links) {
      auto tables = read_tables(link, scene_.side(other_side(of)).where.tables);
      if (!tables) return tables.error();
      found.push_back(std::move(*tables));
    }
    return std::nullopt;
  }
  const std::vector<found_tables>& found(cluster_side of) const {
    return found_[static_cast<std::size_t>(of)];
  }
  const snapshot::move_table* rule(cluster_side of, const found_table& one) const {
    return rule_of(one, scene_.side(of).where.tables);
  }

  void rules(cluster_side of) {
    for (const auto& one : scene_.side(of).where.tables) {
      const auto what = fmt::format("database \"{}\", table {}", name(of),
                                    one.name.empty() ? "with column " + one.column : one.name);
      if (!one.by_mapping && !placement::hasher_of(one.hasher)) {
        missing("{}: hasher {} is not known", what, one.hasher);
      } else if (!placement::key_type_of(one.data_type)) {
        missing("{}: data_type {} is not known", what, one.data_type);
      }
      if (of == cluster_side::old && one.by_mapping && !one.mapping.empty() &&
          one.mapping.front().fallback < 0) {
        warn("{}: its lists and ranges have no default; a row with another key on the new servers "
             "ends the way back", what);
      }
    }
  }

  trouble left_behind(cluster_side of, std::size_t shard) {
    const auto rows = scene_.side(of).links[shard].query(left_query);
    if (!rows) return rows.error();
    const auto& row = rows->at(0);
    if (row[0] != "0") {
      missing("{}: {} large objects, which logical replication does not carry; keep their data in "
              "bytea columns", at(of, shard), row[0]);
    }
    if (!row[1].empty()) {
      missing("{}: sequences that count down would begin anew: {}", at(of, shard), row[1]);
    }
    if (!row[2].empty() && of == cluster_side::old && !resumed_) {
      warn("{}: rows of tables that belong to extensions are not moved: {}", at(of, shard), row[2]);
    }
    return std::nullopt;
  }

  trouble server(cluster_side of, std::size_t shard) {
    auto& here = scene_.side(of);
    auto& link = here.links[shard];
    const auto rows = link.query(server_query);
    if (!rows) return rows.error();
    const auto& row = rows->at(0);
    const auto label = at(of, shard);
    if (std::stoi(row[0]) < 140000) missing("{}: PostgreSQL 14 or later is needed", label);
    if (row[1] != "logical") {
      missing("{}: wal_level is {}; set it to logical and restart the server{}", label, row[1],
              of == cluster_side::fresh ? " (for the way back)" : "");
    }
    const auto needs = needed(here.where.shards[shard]);
    if (std::stoi(row[2]) < needs.slots) {
      missing("{}: {} replication slots must be free on its server; raise max_replication_slots",
              label, needs.slots);
    }
    if (std::stoi(row[3]) < needs.walsenders) {
      missing("{}: {} walsenders have to be free on its server; raise max_wal_senders", label,
              needs.walsenders);
    }
    if (std::stoi(row[4]) < needs.origins) {
      missing("{}: {} replication origins are needed on its server; raise max_replication_slots",
              label, needs.origins);
    }
    if (row[5] != "UTF8") missing("{}: the server's encoding is {}, not UTF8", label, row[5]);
    if (row[6] == "t") missing("{}: the server is a standby", label);
    if (!row[7].empty()) {
      missing("{}: prepared transactions are older than 30 s and would hold up the slots; COMMIT "
              "PREPARED or ROLLBACK PREPARED: {}", label, row[7]);
    }
    if (!row[8].empty()) {
      warn("{}: transactions are older than a minute; the slots wait for the end of those of "
           "backends {}", label, row[8]);
    }
    const auto alike = hashes_alike(link);
    if (!alike) return alike.error();
    if (!*alike) missing("{}: the server hashes keys in another way than pgsled", label);
    move_scene roles;
    roles.stop = scene_.stop;
    roles.where = here.where;
    roles.job = scene_.job;
    roles.runner = scene_.runner;
    const auto rights = missing_rights(link, roles, static_cast<shard_number>(shard),
                                       {true, true, true});
    if (!rights) return rights.error();
    for (const auto& one : *rights) missing("\"{}\": {}", name(of), one);
    owners(of, shard);
    return std::nullopt;
  }

  // By all shards together that the server of this one has: a stream from each of them to each of
  // the other side's, and some more while those are compared. The slots of the way back are made
  // while those of the way there are in use.
  struct demand {
    int slots = 0, walsenders = 0, origins = 0;
  };
  demand needed(const snapshot::move_shard& on) const {
    std::array<int, 2> shards{}, streams{}, compared{};
    for (const auto of : both) {
      const auto place = static_cast<std::size_t>(of);
      const auto others = static_cast<int>(scene_.side(other_side(of)).where.shards.size());
      for (const auto& one : scene_.side(of).where.shards) {
        if (one.host == on.host && one.port == on.port) ++shards[place];
      }
      streams[place] = shards[place] * others;
      compared[place] = shards[place] *
                        std::min(others, static_cast<int>(cluster_flow::compared_at_once));
    }
    return {streams[0] + streams[1] + std::max(compared[0], compared[1]),
            std::max(streams[0] + compared[0], streams[1] + compared[1]),
            std::max(streams[0], streams[1])};
  }

  void owners(cluster_side of, std::size_t shard) {
    const auto role = moving::quoted(scene_.side(of).where.shards[shard].user);
    std::map<std::string, std::vector<std::string>> of_others;
    for (const auto& [label, one] : found(of)[shard]) {
      if (!one.owner.empty()) of_others[one.owner].push_back(label);
      if (!one.secured) continue;
      missing("{}: table {} forces row security on its owner, so that rows could be left out: "
              "ALTER ROLE {} BYPASSRLS", at(of, shard), label, role);
    }
    for (const auto& [owner, labels] : of_others) {
      missing("{}: role {} does not own table{} {}: GRANT {} TO {}", at(of, shard), role,
              labels.size() == 1 ? "" : "s", fmt::join(labels, ", "), owner, role);
    }
  }

  // A shard that is on both sides, or twice, would get its own rows.
  void same_servers() {
    std::set<std::string> seen;
    for (const auto of : both) {
      for (const auto& one : scene_.side(of).where.shards) {
        const auto where = fmt::format("{}:{}/{}", one.host, one.port, one.database);
        if (!seen.insert(where).second) missing("{} is a shard twice", where);
      }
    }
  }

  // Rows placed by sha1 are asked for on both sides by one statement. Where there are no tables yet
  // the extension comes with them.
  trouble digests() {
    const auto is_needed = [&](const auto& table) {
      return std::any_of(both.begin(), both.end(), [&](cluster_side by) {
        const auto* placed = rule(by, table.second);
        return placed != nullptr && by_sha1(*placed);
      });
    };
    const auto& tables = found(cluster_side::old).front();
    if (std::none_of(tables.begin(), tables.end(), is_needed)) return std::nullopt;
    for (const auto of : both) {
      auto& links = scene_.side(of).links;
      for (std::size_t shard = 0; shard < links.size(); ++shard) {
        const auto digest = digest_of(links[shard]);
        if (!digest) return digest.error();
        const auto where = at(of, shard);
        if (digest->empty()) {
          if (of == cluster_side::fresh && found(of)[shard].empty()) continue;
          missing("{}: rows are placed by sha1, which PostgreSQL computes with its extension "
                  "pgcrypto: CREATE EXTENSION pgcrypto", where);
          continue;
        }
        if (digest_.empty()) digest_ = *digest;
        if (*digest != digest_) {
          missing("{}: pgcrypto's function is {} there and {} elsewhere: ALTER EXTENSION pgcrypto "
                  "SET SCHEMA", where, *digest, digest_);
          continue;
        }
        const auto alike = hashes_alike(links[shard], *digest);
        if (!alike && alike.error().sqlstate != "42501") return alike.error();
        if (!alike) {
          missing("{}: role {} may not use {}: {}", where,
                  moving::quoted(scene_.side(of).where.shards[shard].user), *digest,
                  alike.error().message);
        } else if (!*alike) {
          missing("{}: pgcrypto computes another SHA-1 than pgsled", where);
        }
      }
    }
    return std::nullopt;
  }

  trouble tables() {
    for (const auto of : both) {
      for (auto& one : scene_.side(of).gets) one->tables.clear();
    }
    const auto& first = found(cluster_side::old).front();
    report_.no_schema = std::all_of(found(cluster_side::fresh).begin(),
                                    found(cluster_side::fresh).end(),
                                    [](const auto& one) { return one.empty(); }) &&
                        !first.empty();
    for (const auto& [label, one] : first) {
      judge(label, one);
      if (!everywhere(label, one)) continue;
      if (one.partitioned()) continue;
      for (const auto of : both) take_part(other_side(of), of, label);
    }
    for (const auto of : both) {
      for (std::size_t shard = 0; shard < found(of).size(); ++shard) {
        for (const auto& [label, one] : found(of)[shard]) {
          if (!first.contains(label)) {
            missing("{}: table {} is not on {}; drop it there", at(of, shard), label,
                    at(cluster_side::old, 0));
          }
        }
      }
    }
    return std::nullopt;
  }

  void judge(const std::string& label, const found_table& one) {
    if (one.kind == "f") missing("partition {} is a foreign table, which is not moved", label);
    if (one.inherits) {
      missing("table {} inherits or is inherited from, which this version does not move", label);
    }
    if (one.persistence != "p") missing("table {} is not logged, so it cannot be followed", label);
    if (one.it.columns.empty()) missing("table {} has no columns", label);
    if (one.it.primary.empty() && !one.partitioned()) {
      warn("table {} has no primary key that can be followed: its rows are found by all of their "
           "columns, which is slow without an index on the sharding key", label);
    }
  }

  // On all shards of the old side alike, on those of the new one so that it can hold the rows.
  bool everywhere(const std::string& label, const found_table& one) {
    bool good = true;
    for (const auto of : both) {
      if (of == cluster_side::fresh && report_.no_schema) return false;
      for (std::size_t shard = 0; shard < found(of).size(); ++shard) {
        const auto there = found(of)[shard].find(label);
        if (there == found(of)[shard].end()) {
          missing("{}: table {} is not there", at(of, shard), label);
          good = false;
          continue;
        }
        const auto& it = there->second;
        if (it.always) {
          missing("{}: table {} has triggers or rules that are enabled ALWAYS or for REPLICA",
                  at(of, shard), label);
        }
        if (of == cluster_side::old ? it.shape != one.shape
                                    : !fits(at(of, shard), label, one, it)) {
          if (of == cluster_side::old) {
            missing("{}: table {} has other columns than on shard 0", at(of, shard), label);
          }
          good = false;
        }
        key_fits(of, at(of, shard), label, it);
      }
    }
    return good;
  }

  bool fits(const std::string& where, const std::string& label, const found_table& from,
            const found_table& to) {
    bool good = from.kind == to.kind && from.top_schema == to.top_schema &&
                from.top_name == to.top_name;
    if (!good) missing("{}: table {} is partitioned in another way", where, label);
    if (from.it.columns.size() != to.it.columns.size()) {
      missing("{}: table {} has another number of columns", where, label);
      return false;
    }
    for (const auto& one : from.it.columns) {
      const auto there = std::find_if(to.it.columns.begin(), to.it.columns.end(),
                                      [&](const auto& other) { return other.name == one.name; });
      if (there == to.it.columns.end()) {
        missing("{}: table {} has no column {}", where, label, one.name);
        good = false;
      } else if (!widens(one.type, there->type)) {
        missing("{}: column {} of table {} is {}, which cannot hold what {} holds", where, one.name,
                label, there->type, one.type);
        good = false;
      }
    }
    return good;
  }

  // The key by which rows of the table are placed on either side.
  void key_fits(cluster_side of, const std::string& where, const std::string& label,
                const found_table& it) {
    for (const auto by : both) {
      const auto* rule = this->rule(by, it);
      if (rule == nullptr) continue;
      if (is_generated(it, rule->column)) {
        missing("{}: the sharding key {} of table {} is a generated column, which the log does not "
                "have", where, rule->column, label);
      }
      const auto type = placement::key_type_of(rule->data_type);
      for (const auto& column : it.it.columns) {
        if (column.name != rule->column || !type) continue;
        if (!holds_keys(column.type, *type)) {
          missing("{}: the sharding key {} of table {} is {}, the file says {} for database \"{}\"",
                  where, column.name, label, column.type, rule->data_type, name(by));
        }
      }
    }
    if (!it.key_deterministic && rule(other_side(of), it) != nullptr) {
      missing("{}: the collation of the sharding key of table {} is not deterministic", where,
              label);
    }
  }

  // A table with its rows on every shard comes from the first one.
  void take_part(cluster_side from, cluster_side to, const std::string& label) {
    const auto& there = found(to).front().at(label);
    for (shard_number source = 0; source < found(from).size(); ++source) {
      auto one = found(from)[source].at(label);
      if (source > 0 && rule(from, one) == nullptr) break;
      for (auto& column : one.it.columns) {
        for (const auto& other : there.it.columns) {
          if (other.name != column.name) continue;
          if (other.type != column.type) one.it.other_types = true;
          column.identity_always = column.identity_always || other.identity_always;
        }
      }
      one.it.home = home(from, source, one);
      for (auto& scene : scene_.side(to).gets) scene->tables[source].push_back(one.it);
    }
  }

  std::optional<moving::table_home> home(cluster_side of, shard_number shard,
                                         const found_table& one) const {
    const auto* placed = rule(of, one);
    const auto& where = scene_.side(of).where;
    if (placed == nullptr || where.shards.size() == 1) return std::nullopt;
    moving::table_home to;
    to.by = placing_of(*placed, digest_);
    for (std::size_t i = 0; i < one.it.columns.size(); ++i) {
      if (one.it.columns[i].name == placed->column) to.key = i;
    }
    to.own = scene_.side(of).rows_of(shard);
    return to;
  }

  // What is unique on a server need not be so over several.
  trouble unique_on_each(management::connection& link, const found_tables& tables) {
    if (scene_.side(cluster_side::fresh).where.shards.size() == 1) return std::nullopt;
    for (const auto& [label, one] : tables) {
      if (one.it.whole() || !one.top_name.empty()) continue;   // partitions: as the table they are of
      const auto& key = one.it.columns[one.it.key].name;
      const auto indexes = unique_without(link, one.it, key);
      if (!indexes) return indexes.error();
      if (indexes->empty()) continue;
      warn("table {}: unique keys without the sharding key {} hold on each shard of \"{}\", not over "
           "all of them: {}", label, key, scene_.to, fmt::join(*indexes, ", "));
    }
    return std::nullopt;
  }

  // Rows without a key, and such that refer to each other across shards.
  trouble together() {
    const auto& first = found(cluster_side::old);
    for (std::size_t shard = 0; shard < first.size(); ++shard) {
      for (const auto& [label, one] : first[shard]) {
        const auto nowhere = moving::where_unplaced(one.it);
        if (!nowhere || one.partitioned() || !one.owner.empty()) continue;
        if (!holds_keys(one.it.columns[one.it.key].type, one.it.by.type)) continue;
        const auto some = one_value(scene_.side(cluster_side::old).links[shard],
                                    fmt::format("SELECT EXISTS (SELECT FROM ONLY {} WHERE {})",
                                                moving::in_sql(one.it), *nowhere));
        if (!some) return some.error();
        if (*some != "t") continue;
        missing("{}: table {} has rows whose {} is NULL{}, by which \"{}\" would place them",
                at(cluster_side::old, shard), label, one.it.columns[one.it.key].name,
                one.it.by.mapping ? " or in no list and no range" : "", scene_.to);
      }
    }
    const auto of = report_.no_schema ? cluster_side::old : cluster_side::fresh;
    auto& link = scene_.side(of).links.front();
    const auto tables = read_tables(link, scene_.side(cluster_side::fresh).where.tables);
    if (!tables) return tables.error();
    if (auto error = unique_on_each(link, *tables)) return error;
    const auto apart = references_apart(link, *tables, [](const found_table&) { return false; });
    if (!apart) return apart.error();
    for (const auto& one : *apart) missing("\"{}\": {}", scene_.to, one);
    return std::nullopt;
  }

  trouble empty() {
    const auto& there = found(cluster_side::fresh);
    for (std::size_t shard = 0; shard < there.size(); ++shard) {
      for (const auto& [label, one] : there[shard]) {
        if (!one.owner.empty()) continue;
        const auto some = one_value(
            scene_.side(cluster_side::fresh).links[shard],
            fmt::format("SELECT EXISTS (SELECT FROM {})", moving::in_sql(one.it)));
        if (!some) return some.error();
        if (*some == "t") {
          missing("{}: table {} is not empty; TRUNCATE it there", at(cluster_side::fresh, shard),
                  label);
        }
      }
    }
    return std::nullopt;
  }

  cluster_scene& scene_;
  bool resumed_;
  std::string digest_;                // of pgcrypto, as SQL; empty: it is not needed
  std::array<std::vector<found_tables>, 2> found_;
  move_report report_;
};

using tables_of_scenes = std::vector<std::map<shard_number, std::vector<moving::table>>>;

tables_of_scenes take_tables(cluster_scene& scene) {
  tables_of_scenes all;
  for (const auto of : both) {
    for (auto& one : scene.side(of).gets) all.push_back(std::move(one->tables));
  }
  return all;
}

void put_tables(cluster_scene& scene, tables_of_scenes tables) {
  std::size_t next = 0;
  for (const auto of : both) {
    for (auto& one : scene.side(of).gets) one->tables = std::move(tables[next++]);
  }
}

}  // namespace

bool widens(std::string_view from, std::string_view to) {
  if (from == to) return true;
  constexpr std::array<std::string_view, 3> integers{"smallint", "integer", "bigint"};
  const auto* narrow = std::find(integers.begin(), integers.end(), from);
  if (narrow != integers.end()) {
    return to == "numeric" || std::find(narrow, integers.end(), to) != integers.end();
  }
  constexpr std::string_view varying = "character varying";
  if (!from.starts_with(varying) && from != "text") return false;
  if (to == "text" || to == varying) return true;
  if (!to.starts_with(varying) || from == "text") return false;
  const auto short_one = length_of(from), long_one = length_of(to);
  return short_one && long_one && *short_one <= *long_one;
}

result<move_report> check_cluster(cluster_scene& scene, bool resumed) {
  return cluster_checker(scene, resumed).run();
}

trouble same_cluster_tables(cluster_scene& scene) {
  auto before = take_tables(scene);
  const auto report = cluster_checker(scene, true).run();
  auto now = take_tables(scene);
  const bool same = now == before;
  put_tables(scene, std::move(before));
  if (!report) return report.error();
  if (same && report->missing.empty()) return std::nullopt;
  return pg_error{"55000",
                  report->missing.empty()
                      ? "tables were made, changed or dropped during the move"
                      : "tables were changed during the move: " + report->missing.front(),
                  {}, {}};
}

}  // namespace pgsled::replicator
