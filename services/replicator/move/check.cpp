#include "services/replicator/move/check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "common/management/together.hpp"
#include "common/placement/change.hpp"
#include "common/placement/rule.hpp"
#include "services/replicator/move/alike.hpp"
#include "services/replicator/move/changes.hpp"
#include "services/replicator/move/definitions.hpp"
#include "services/replicator/move/rights.hpp"
#include "services/replicator/move/tables.hpp"

namespace pgsled::replicator {

namespace {

template <class Integer>
Integer number(const std::string& text) {
  Integer value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Unique indexes whose columns, as names.
constexpr const char* unique_query = R"sql(
SELECT x.indrelid, i.relname, x.indisprimary, coalesce(string_agg(a.attname, U&'\001f'), '')
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[])
WHERE x.indisunique GROUP BY 1, 2, 3 ORDER BY 2)sql";

// By table, what every index is; its name may differ.
constexpr const char* indexes_query = R"sql(
SELECT n.nspname || '.' || c.relname, i.relname,
  {} || CASE WHEN x.indisunique THEN ' unique' ELSE '' END
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE x.indisvalid AND n.nspname NOT IN ('information_schema', 'pgsled')
  AND n.nspname NOT LIKE 'pg\_%' ORDER BY 1, 2)sql";

constexpr std::size_t most_named = 20;         // definitions of each kind of difference
// Since then a REPLICA IDENTITY FULL must not have columns that are not published.
constexpr int unpublished_refused = 18;

constexpr const char* server_query = R"sql(
SELECT current_setting('server_version_num'), current_setting('wal_level'),
  current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
  current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
  current_setting('max_prepared_transactions')::int,
  current_setting('max_replication_slots')::int
    - (SELECT count(*) FROM pg_replication_origin), current_setting('server_encoding'),
  to_regprocedure('pgsled.flip_shard_map(text,bigint,integer[],text)') IS NOT NULL,
  to_regprocedure('pgsled.decide(text,text,integer[])') IS NOT NULL,
  (SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE prepared < now() - interval '30 s'),
  (SELECT string_agg(pid::text, ', ') FROM pg_stat_activity WHERE backend_xid IS NOT NULL
    AND xact_start < now() - interval '60 s'), pg_is_in_recovery())sql";

class checker {
 public:
  // `again`: the destination must have all tables by now.
  explicit checker(move_scene& scene, bool again = false) : scene_(scene), again_(again) {}

  result<move_report> run() {
    for (const auto& at : scene_.where.shards) {
      if (auto error = server(at.number)) return tl::unexpected(std::move(*error));
      if (auto error = buckets(at.number)) return tl::unexpected(std::move(*error));
    }
    auto all = tables();
    if (!all) return tl::unexpected(all.error());
    scene_.began_with.clear();
    for (const auto& [shard, there] : *all) {
      for (const auto& [label, one] : there) {
        scene_.began_with[shard][label] = {one.oid, one.file};
      }
    }
    const auto first = scene_.sources.front();
    mappings(all->at(first));
    if (auto error = digests(*all)) return tl::unexpected(std::move(*error));
    if (auto error = indexes(all->at(first))) return tl::unexpected(std::move(*error));
    if (auto error = references(all->at(first))) return tl::unexpected(std::move(*error));
    if (auto error = same_indexes(all->at(first))) return tl::unexpected(std::move(*error));
    if (auto error = same_definitions(all->at(first), all->at(scene_.destination))) {
      return tl::unexpected(std::move(*error));
    }
    if (auto error = empty(all->at(scene_.destination))) return tl::unexpected(std::move(*error));
    if (auto error = unplaced(*all)) return tl::unexpected(std::move(*error));
    return std::move(report_);
  }

  const move_report& report() const { return report_; }

  result<std::map<shard_number, found_tables>> tables() {
    std::map<shard_number, found_tables> all;
    for (const auto& at : scene_.where.shards) all.try_emplace(at.number);
    // Clients may be waiting: all at once.
    if (auto error = management::together(scene_.where.shards.size(), [&](std::size_t i) {
          const shard_number shard = scene_.where.shards[i].number;
          auto found = read_tables(scene_.link(shard), scene_.where.tables);
          if (!found) return trouble(found.error());
          all.at(shard) = std::move(*found);
          return trouble();
        })) {
      return tl::unexpected(std::move(*error));
    }
    scene_.tables.clear();
    const auto first = scene_.sources.front();
    for (auto& [label, one] : all.at(first)) {
      if (skipped(one)) continue;
      judge(label, one);
      compare(label, one, all);
      if (one.partitioned()) continue;
      for (const shard_number source : scene_.sources) {
        const auto there = all.at(source).find(label);
        if (there == all.at(source).end()) continue;
        if (one.it.whole() && (source != first || scene_.destination_owns())) continue;
        scene_.tables[source].push_back(there->second.it);
      }
    }
    for (const auto& [shard, there] : all) rights(shard, there);
    for (const shard_number source : scene_.sources) {
      for (const auto& [label, one] : all.at(source)) {
        if (!all.at(first).contains(label) && !one.it.whole()) {
          missing("table {} is on shard {}, but not on shard {}", label, source, first);
        }
      }
    }
    return all;
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

  trouble server(shard_number shard) {
    const auto rows = scene_.link(shard).query(server_query);
    if (!rows) return rows.error();
    const auto& row = rows->at(0);
    const bool source = std::find(scene_.sources.begin(), scene_.sources.end(), shard) !=
                        scene_.sources.end();
    const auto needed = static_cast<int>(scene_.sources.size());
    major_[shard] = number<int>(row[0]) / 10000;
    if (major_[shard] < 14) missing("shard {}: PostgreSQL 14 or later is needed", shard);
    if (row[11] == "t") missing("shard {}: the server is a standby", shard);
    if (row[6] != "UTF8") missing("shard {}: the server's encoding is {}, not UTF8", shard, row[6]);
    if (source && row[1] != "logical") {
      missing("shard {}: wal_level is {}; set it to logical and restart the server", shard, row[1]);
    }
    if (source && number<int>(row[2]) < 2) {
      missing("shard {}: two replication slots must be free; raise max_replication_slots", shard);
    }
    if (source && number<int>(row[3]) < 2) {
      missing("shard {}: two walsenders have to be free; raise max_wal_senders", shard);
    }
    if (shard == scene_.destination && number<int>(row[5]) < needed) {
      missing("shard {}: {} replication origins are needed; raise max_replication_slots", shard,
              needed);
    }
    if (number<int>(row[4]) < 1) {
      missing("shard {}: max_prepared_transactions is 0; the new map is committed by two-phase "
              "commit", shard);
    }
    if (row[7] != "t") {
      missing("shard {}: pgsled.flip_shard_map() is not there; is the router of this "
              "version, and may it reach the shard?", shard);
    }
    if (row[8] != "t") {
      missing("shard {}: pgsled.decide() is not there; set two_phase_commit = true in [general] "
              "and RELOAD", shard);
    }
    if (source && !row[9].empty()) {
      missing("shard {}: prepared transactions are older than 30 s and would hold up the slot; "
              "COMMIT PREPARED or ROLLBACK PREPARED: {}", shard, row[9]);
    }
    if (source && !row[10].empty()) {
      warn("shard {}: transactions are older than a minute; the slot waits for the end of those of "
           "backends {}", shard, row[10]);
    }
    auto rights = missing_rights(scene_.link(shard), scene_, shard,
                                 {source, shard == scene_.destination, false});
    if (!rights) return rights.error();
    for (auto& one : *rights) report_.missing.push_back(std::move(one));
    return std::nullopt;
  }

  bool takes_part(shard_number shard) const {
    return shard == scene_.destination ||
           std::find(scene_.sources.begin(), scene_.sources.end(), shard) != scene_.sources.end();
  }

  // They belong to no bucket, so that no move takes them along from a shard that is emptied.
  trouble unplaced(const std::map<shard_number, found_tables>& all) {
    const auto shard = scene_.goal.shard;
    if (scene_.goal.kind != moving::goal_kind::remove_shard || !all.contains(shard)) return {};
    for (const auto& [label, one] : all.at(shard)) {
      const auto nowhere = moving::where_unplaced(one.it);
      if (!nowhere || one.partitioned() || !one.owner.empty() || skipped(one)) continue;
      const auto some = one_value(scene_.link(shard), fmt::format(
          "SELECT EXISTS (SELECT FROM ONLY {} WHERE {})", moving::in_sql(one.it), *nowhere));
      if (!some) return some.error();
      if (*some != "t") continue;
      missing("table {} has rows on shard {} whose {} is NULL: they would be left there; give them "
              "one, or move them by hand", label, shard, one.it.columns[one.it.key].name);
    }
    return {};
  }

  // With the function that tables placed by sha1 are asked for by, too.
  trouble digests(const std::map<shard_number, found_tables>& all) {
    for (const auto& [shard, tables] : all) {
      const auto one = std::find_if(tables.begin(), tables.end(), [](const auto& table) {
        return !table.second.it.by.digest.empty();
      });
      if (one == tables.end() || !takes_part(shard)) continue;
      const auto alike = hashes_alike(scene_.link(shard), one->second.it.by.digest);
      if (!alike) return alike.error();
      if (!*alike) missing("shard {}: pgcrypto computes another SHA-1 than pgsled", shard);
    }
    return std::nullopt;
  }

  // Lists and ranges name shards themselves: nothing of them moves.
  void mappings(const found_tables& tables) {
    std::vector<std::string> stay;
    for (const auto& [label, one] : tables) {
      if (skipped(one) && one.top_name.empty()) stay.push_back(label);
    }
    for (auto& one : mapped_there(scene_)) report_.missing.push_back(std::move(one));
    if (!stay.empty()) {
      warn("rows of table{} {} are placed by list or range: they stay on their shards",
           stay.size() == 1 ? "" : "s", fmt::join(stay, ", "));
    }
  }

  trouble buckets(shard_number shard) {
    const auto alike = hashes_alike(scene_.link(shard));
    if (!alike) return alike.error();
    if (!*alike) missing("shard {}: the server hashes keys in another way than pgsled", shard);
    return std::nullopt;
  }

  int newest() const {
    int version = 0;
    for (const auto& [shard, major] : major_) version = std::max(version, major);
    return version;
  }

  const snapshot::move_table* rule_of(const found_table& of) const {
    return replicator::rule_of(of, scene_.where.tables);
  }
  bool skipped(const found_table& of) const {
    const auto* rule = rule_of(of);
    return rule != nullptr && rule->by_mapping;
  }

  void judge(const std::string& label, const found_table& one) {
    if (one.kind == "f") {
      missing("partition {} is a foreign table, which is not moved; detach it", label);
      return;
    }
    if (one.inherits) {
      missing("table {} inherits or is inherited from, which this version does not move", label);
      return;
    }
    if (one.persistence != "p") missing("table {} is not logged, so it cannot be followed", label);
    if (one.it.columns.empty()) missing("table {} has no columns", label);
    if (one.it.primary.empty() && !one.partitioned()) {
      warn("table {} has no primary key that can be followed: its rows are found by all of their "
           "columns, which is slow without an index on the sharding key", label);
    }
    if (one.computes && !one.known_as_it_is() && newest() >= unpublished_refused) {
      missing("table {} has generated columns and no primary key with its sharding key: PostgreSQL "
              "18 would refuse UPDATE and DELETE of it while its changes are followed", label);
    }
    if (one.always) {
      missing("table {} has triggers or rules that are enabled ALWAYS or for REPLICA", label);
    }
    const auto* rule = rule_of(one);
    if (rule == nullptr) return;
    if (one.it.by.hasher == placement::hasher::sha1 && one.it.by.digest.empty()) {
      missing("table {} is placed by sha1, which PostgreSQL computes with its extension pgcrypto: "
              "CREATE EXTENSION pgcrypto  on shard {}", label, scene_.sources.front());
    }
    if (!placement::key_type_of(rule->data_type)) {
      missing("table {}: data_type {} is not known", label, rule->data_type);
    }
    if (is_generated(one, rule->column)) {
      missing("table {}: its sharding key {} is a generated column, which the log does not have",
              label, rule->column);
    }
    if (!one.key_deterministic) {
      missing("table {}: the collation of its sharding key is not deterministic", label);
    }
    if (one.it.key == moving::table::none) return;
    const auto& type = one.it.columns[one.it.key].type;
    if (!holds_keys(type, one.it.by.type)) {
      missing("table {}: its sharding key is {}, the file says {}", label, type, rule->data_type);
    }
  }

  // By owner: one GRANT gives the rights to all of its tables.
  void rights(shard_number shard, const found_tables& there) {
    if (!takes_part(shard)) return;
    std::map<std::string, std::vector<std::string>> of_others;
    for (const auto& [label, one] : there) {
      if (skipped(one)) continue;
      if (!one.owner.empty()) of_others[one.owner].push_back(label);
      if (one.secured) {
        missing("shard {}: table {} forces row security on its owner, so that rows could be left "
                "out: ALTER ROLE {} BYPASSRLS", shard, label,
                moving::quoted(scene_.where.shards[shard].user));
      }
    }
    const auto role = moving::quoted(scene_.where.shards[shard].user);
    for (const auto& [owner, labels] : of_others) {
      missing("shard {}: role {} does not own table{} {}: GRANT {} TO {}", shard, role,
              labels.size() == 1 ? "" : "s", fmt::join(labels, ", "), owner, role);
    }
  }

  void compare(const std::string& label, const found_table& one,
               const std::map<shard_number, found_tables>& all) {
    for (const auto& [shard, tables] : all) {
      const auto there = tables.find(label);
      if (there == tables.end()) {
        if (shard == scene_.destination && again_) {
          missing("table {} is not on shard {}", label, shard);
        } else if (shard == scene_.destination) {
          lacking_.push_back(label);
        } else if (takes_part(shard)) {
          missing("table {} is not on shard {}", label, shard);
        }
      } else if (there->second.shape != one.shape) {
        missing("table {} has other columns on shard {} than on shard {}: {}", label, shard,
                scene_.sources.front(), other_columns(there->second.it, one.it));
      } else if (there->second.it.by.digest != one.it.by.digest && takes_part(shard)) {
        missing("table {} is placed by sha1, for which shard {} needs the extension pgcrypto, in "
                "the schema where it is on shard {}", label, shard, scene_.sources.front());
      }
    }
  }

  trouble indexes(const found_tables& tables) {
    const auto rows = scene_.link(scene_.sources.front()).query(unique_query);
    if (!rows) return rows.error();
    for (const auto& [label, one] : tables) {
      if (one.it.whole() || skipped(one) || one.partitioned()) continue;
      const auto& key = one.it.columns[one.it.key].name;
      for (const auto& row : *rows) {
        if (row[0] != one.oid) continue;
        const auto columns = split_names(row[3]);
        if (std::find(columns.begin(), columns.end(), key) != columns.end()) continue;
        warn("table {}: unique index {} is without the sharding key {}; rows of two shards that "
             "are equal in it end the move", label, row[1], key);
      }
    }
    return std::nullopt;
  }

  // What the new shard lacks would be missed only when it is in use.
  trouble same_indexes(const found_tables& tables) {
    if (!lacking_.empty()) return std::nullopt;
    const auto query = fmt::format(
        fmt::runtime(indexes_query),
        loosely("substr(pg_get_indexdef(i.oid), strpos(pg_get_indexdef(i.oid), ' USING '))"));
    const auto here = scene_.link(scene_.sources.front()).query(query);
    if (!here) return here.error();
    const auto there = scene_.link(scene_.destination).query(query);
    if (!there) return there.error();
    std::multiset<std::pair<std::string, std::string>> known;
    for (const auto& row : *there) known.emplace(row[0], row[2]);
    for (const auto& row : *here) {
      const auto of = tables.find(row[0]);
      if (of == tables.end() || skipped(of->second)) continue;
      if (const auto found = known.find({row[0], row[2]}); found != known.end()) {
        known.erase(found);
      } else if (printed_alike() && row[2].ends_with(" unique")) {
        missing("table {}: unique index {} is not on shard {}", row[0], row[1], scene_.destination);
      } else {
        warn("table {}: index {} is not on shard {}", row[0], row[1], scene_.destination);
      }
    }
    return std::nullopt;
  }

  // Triggers, defaults, constraints, policies, rights and so on.
  trouble same_definitions(const found_tables& tables, const found_tables& fresh) {
    if (!lacking_.empty()) return std::nullopt;
    auto &from = scene_.link(scene_.sources.front()), &to = scene_.link(scene_.destination);
    const auto here = read_definitions(from), there = read_definitions(to);
    if (!here) return here.error();
    if (!there) return there.error();
    const auto roles = read_roles(to);
    if (!roles) return roles.error();
    other_shard other{*there, *roles, {}};
    for (const auto& [label, one] : tables) {
      if (!skipped(one) && fresh.contains(label)) other.tables.insert(label);
    }
    const auto found = unlike_there(*here, other, printed_alike());
    const auto told = [&](const std::vector<std::string>& all, auto&& tell) {
      for (std::size_t i = 0; i < std::min(all.size(), most_named); ++i) tell(all[i]);
      if (all.size() > most_named) tell(fmt::format("{} more", all.size() - most_named));
    };
    told(found.wrong, [&](const auto& what) {
      missing("shard {} is not defined as shard {}: {}", scene_.destination,
              scene_.sources.front(), what);
    });
    told(found.perhaps, [&](const auto& what) {
      warn("shard {} may not be defined as shard {}: {}", scene_.destination,
           scene_.sources.front(), what);
    });
    return std::nullopt;
  }

  // Servers of two major versions may write one definition in two ways.
  bool printed_alike() const {
    return major_.at(scene_.sources.front()) == major_.at(scene_.destination);
  }

  trouble references(const found_tables& tables) {
    const auto apart = references_apart(scene_.link(scene_.sources.front()), tables,
                                        [&](const found_table& one) { return skipped(one); });
    if (!apart) return apart.error();
    for (const auto& one : *apart) report_.missing.push_back(one);
    return std::nullopt;
  }

  trouble empty(const found_tables& there) {
    if (!lacking_.empty() && there.empty()) {
      report_.no_schema = true;
      return std::nullopt;
    }
    if (!lacking_.empty()) {
      const auto& from = scene_.where.shards[scene_.sources.front()];
      const auto& to = scene_.where.shards[scene_.destination];
      missing("shard {} does not have the table{} {}: run  pg_dump --schema-only -N pgsled -h {} "
              "-p {} -U {} {} | psql -1 -v ON_ERROR_STOP=1 -h {} -p {} -U {} {}",
              scene_.destination, lacking_.size() == 1 ? "" : "s", fmt::join(lacking_, ", "),
              from.host, from.port, from.user, from.database, to.host, to.port, to.user,
              to.database);
      return std::nullopt;
    }
    auto& link = scene_.link(scene_.destination);
    for (const auto& [label, one] : there) {
      if (skipped(one) || !one.owner.empty()) continue;
      const bool owns = scene_.destination_owns();
      if (owns && one.it.whole()) continue;
      // Said already; its rows cannot be told.
      if (one.it.by.hasher == placement::hasher::sha1 && one.it.by.digest.empty()) continue;
      const auto some = one_value(
          link, fmt::format("SELECT EXISTS (SELECT FROM {} WHERE {})", moving::in_sql(one.it),
                            owns ? moving::where_moving(one.it, {scene_.map.size(), scene_.moving})
                                 : "true"));
      if (!some) return some.error();
      if (*some == "t" && owns) {
        missing("table {} on shard {} has rows already that belong where they are to come from; "
                "DELETE them there", label, scene_.destination);
      } else if (*some == "t") {
        missing("table {} on shard {} is not empty; TRUNCATE it there", label,
                scene_.destination);
      }
    }
    return std::nullopt;
  }

  move_scene& scene_;
  bool again_;
  move_report report_;
  std::vector<std::string> lacking_;   // on the destination
  std::map<shard_number, int> major_;  // versions of the servers
};

}  // namespace

trouble verdict(const move_report& report) {
  const auto& missing = report.missing;
  if (missing.empty()) return std::nullopt;
  return pg_error{"55000", fmt::format("the move cannot begin: {} thing{} missing or not as {} "
                                       "should be", missing.size(),
                                       missing.size() == 1 ? " is" : "s are",
                                       missing.size() == 1 ? "it" : "they"),
                  {}, fmt::format("{}", fmt::join(missing, "\n"))};
}

std::vector<std::string> mapped_there(const move_scene& scene) {
  std::vector<std::string> all;
  if (scene.goal.kind != moving::goal_kind::remove_shard) return all;
  for (const auto& rule : scene.where.tables) {
    if (!rule.by_mapping || rule.mapping.empty()) continue;
    const auto there = placement::places_on(rule.mapping.front(), scene.goal.shard);
    if (there.empty()) continue;
    all.push_back(fmt::format(
        "{} with {} {} are placed on shard {} by the file, and pgsled does not move them: move "
        "them by hand, let [[sharded_tables.mapping]] name another shard, say so in "
        "placed_by_hand of [resharding], RELOAD, and begin again",
        rule.name.empty() ? "rows" : "rows of " + rule.name, rule.column, there,
        scene.goal.shard));
  }
  return all;
}

const char* schema_is_there() {
  return "SELECT to_regprocedure('pgsled.flip_shard_map(text,bigint,integer[],text)') IS NOT NULL "
         "AND to_regprocedure('pgsled.decide(text,text,integer[])') IS NOT NULL";
}

result<move_report> check_move(move_scene& scene) { return checker(scene).run(); }

result<std::map<shard_number, found_tables>> tables_again(move_scene& scene,
                                                          std::vector<std::string>& missing) {
  checker again(scene, true);
  auto found = again.tables();
  missing = again.report().missing;
  return found;
}

trouble find_tables(move_scene& scene) {
  const auto found = checker(scene).tables();
  return found ? trouble() : trouble(found.error());
}

}  // namespace pgsled::replicator
