#include "services/replicator/move/source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "common/commit/statements.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using std::chrono::milliseconds;

constexpr std::string_view identity_words = " REPLICA IDENTITY ";

// Of an entry of pgsled.job.altered. A bare name is of a version that only knew DEFAULT.
std::string table_of(const std::string& entry) {
  return entry.substr(0, entry.find(identity_words));
}

// An index that somebody has dropped meanwhile must not keep the move from its end.
std::string identity_as_before(const std::string& entry) {
  const auto at = entry.find(identity_words);
  const auto table = "ALTER TABLE IF EXISTS ONLY " + table_of(entry) + std::string(identity_words);
  const auto kind = at == std::string::npos ? "DEFAULT" : entry.substr(at + identity_words.size());
  if (!kind.starts_with("USING INDEX ")) return table + kind + "; ";
  return "DO" + literal("BEGIN " + table + kind +
                        "; EXCEPTION WHEN undefined_object OR wrong_object_type THEN " + table +
                        "DEFAULT; END") + "; ";
}

// How long the next try waits, in ms.
std::string lock_wait(management::connection& link, const std::string& vacuums, bool patient) {
  const std::string usual = "200";
  const auto cancelled = one_value(link, "SELECT count(pg_cancel_backend(a.pid))" + vacuums +
                                             "a.backend_type = 'autovacuum worker'");
  if ((cancelled && *cancelled != "0") || !patient) return usual;
  // What is hidden from this role may be one.
  const auto there = one_value(link, "SELECT count(*)" + vacuums +
                                         "coalesce(a.backend_type, 'autovacuum worker') = "
                                         "'autovacuum worker'");
  if (!there || *there == "0") return usual;
  const auto until = one_value(link, "SELECT setting::bigint + 300 FROM pg_settings WHERE "
                                     "name = 'deadlock_timeout'");
  return until && !until->empty() ? *until : usual;
}

// Statements that lock tables of clients, who queue behind them: short waits, many of them. `sql`
// is one transaction, `among` the tables. An autovacuum gives way only to who has waited for
// deadlock_timeout: it is cancelled if that is allowed (one against wraparound would come back at
// once), else waited out for that long, now and then.
trouble between_clients(management::connection& link, const std::string& first,
                        const std::string& sql, const std::vector<std::string>& among,
                        const std::function<bool()>& give_up) {
  constexpr int attempts = 50, patient_each = 10;
  std::string oids;
  for (const std::string& one : among) {
    oids += (oids.empty() ? "" : ", ") + fmt::format("to_regclass({})", literal(one));
  }
  const std::string vacuums =
      " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'relation' AND "
      "l.granted AND l.mode = 'ShareUpdateExclusiveLock' AND l.relation = ANY (ARRAY[" + oids +
      "]::regclass[]) AND coalesce(a.query, '') NOT LIKE '%to prevent wraparound%' AND ";
  std::string wait = "200";
  for (int attempt = 0;; ++attempt) {
    auto error = execute(link, fmt::format("{}; SET LOCAL lock_timeout = '{}ms'; {}", first, wait,
                                           sql));
    if (!error || error->sqlstate != "55P03" || attempt == attempts || give_up()) return error;
    wait = lock_wait(link, vacuums, attempt % patient_each == 0);
    std::this_thread::sleep_for(milliseconds(100));
  }
}

}  // namespace

trouble publish(management::connection& link, const move_scene& scene,
                const std::vector<moving::table>& tables, const std::function<bool()>& give_up) {
  const auto identities = link.query(
      "SELECT n.nspname || '.' || c.relname, c.relreplident, (SELECT quote_ident(i.relname) FROM "
      "pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid AND "
      "x.indisreplident LIMIT 1) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind = 'r' AND c.relreplident <> 'f'");
  if (!identities) return identities.error();
  std::vector<std::string> back;       // as they were
  std::vector<std::string> locked;
  std::string names, sql;
  for (const moving::table& one : tables) {
    const auto name = moving::in_sql(one);
    names += (names.empty() ? "" : ", ") + ("ONLY " + name);
    locked.push_back(name);
    const auto found = std::find_if(identities->begin(), identities->end(),
                                    [&](const auto& row) { return row[0] == one.label(); });
    if (found == identities->end()) continue;
    const auto& kind = (*found)[1];
    if (kind == "d" && one.known_by_primary()) continue;
    sql += "ALTER TABLE ONLY " + name + " REPLICA IDENTITY FULL; ";
    back.push_back(name + " REPLICA IDENTITY " +
                   (kind == "n" ? "NOTHING"
                    : kind == "i" && !(*found)[2].empty() ? "USING INDEX " + (*found)[2]
                                                          : "DEFAULT"));
  }
  sql += fmt::format("UPDATE pgsled.job SET altered = {} WHERE id = {}; CREATE PUBLICATION {}{}",
                     text_array(back), literal(scene.job), scene.publication(),
                     names.empty() ? "" : " FOR TABLE " + names);
  return between_clients(link, hold_job(scene), sql, locked, give_up);
}

trouble write_marker(management::connection& link, std::string_view marker) {
  return execute(link, fmt::format(
      "SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, '{}', {})",
      moving::marker_prefix, literal(marker)));
}

trouble drain_source(management::connection& link, const std::string& label,
                     milliseconds patience) {
  const auto held = one_value(link, "SELECT clock_timestamp()");
  if (!held) return held.error();
  const auto until = clock::now() + patience;
  while (true) {
    const auto left = link.again(
        "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database() "
        "AND prepared <= $1::timestamptz) + (SELECT count(*) FROM pg_stat_activity WHERE datname = "
        "current_database() AND backend_xid IS NOT NULL AND xact_start <= $1::timestamptz "
        "AND pid <> pg_backend_pid())", {*held});
    if (!left) return left.error();
    const std::string& count = left->at(0).at(0);
    if (count == "0") return std::nullopt;
    if (clock::now() > until) {
      return pg_error{"55P03", fmt::format("{} transactions that are older than the fence are "
                                           "still open or prepared on {}", count, label),
                      "See pg_stat_activity and pg_prepared_xacts there.", {}};
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
}

trouble watch_slot(management::connection& link, const std::string& label, const std::string& slot,
                   std::int64_t limit) {
  const auto rows = link.query(fmt::format(
      "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, wal_status FROM "
      "pg_replication_slots WHERE slot_name = '{}'", slot));
  if (!rows) return rows.error();
  const bool lost = rows->empty() || rows->front()[0].empty() || rows->front()[1] == "lost";
  if (!lost && std::stoll(rows->front()[0]) <= limit) return std::nullopt;
  return pg_error{
      "53400",
      lost ? fmt::format("the slot of the move on {} was given up by its server "
                         "(max_slot_wal_keep_size) or dropped", label)
           : fmt::format("the slot of the move holds back {} bytes of log on {}, more than "
                         "resharding_slot_limit allows", rows->front()[0], label),
      "Move at a quieter time.", {}};
}

trouble patiently(management::connection& link, const std::string& sql) {
  for (int attempt = 0;; ++attempt) {
    auto error = execute(link, sql);
    if (!error || error->sqlstate != "55006" || attempt == 100) return error;
    std::this_thread::sleep_for(milliseconds(50));
  }
}

trouble drop_slot(management::connection& link, const std::string& slot) {
  if (auto error = execute(link, fmt::format(
          "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
          "WHERE slot_name = '{}' AND active_pid IS NOT NULL", slot))) {
    return error;
  }
  return patiently(link, fmt::format("SELECT pg_drop_replication_slot(slot_name) FROM "
                                     "pg_replication_slots WHERE slot_name = '{}'", slot));
}

trouble restore_identities(management::connection& link, const move_scene& scene) {
  const auto altered = link.query(fmt::format(
      "SELECT unnest(altered) FROM pgsled.job WHERE id = {}", literal(scene.job)));
  if (!altered) return altered.error();
  for (const auto& row : *altered) {
    const auto sql = fmt::format(
        "{}UPDATE pgsled.job SET altered = array_remove(altered, {}) WHERE id = {}",
        identity_as_before(row[0]), literal(row[0]), literal(scene.job));
    if (auto error = between_clients(link, hold_job(scene), sql, {table_of(row[0])},
                                     [] { return false; })) {
      return error;
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
