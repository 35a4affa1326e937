#include "services/router/commit/jobs.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/commit/statements.hpp"
#include "services/router/commit/decision_schema.hpp"
#include "services/router/shards/map.hpp"

namespace pgsled::router {

namespace {

constexpr std::chrono::milliseconds connect_timeout{2000};
constexpr commit::resolver_limits bounds;

// While nothing is prepared, decisions are looked at only once a minute, for old ones.
constexpr int rounds_between_looks = 60;

std::int64_t number(const std::string& text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// A standby shows nothing as prepared and must not be taken for a shard that has confirmed.
constexpr const char* begin_sql =
    "SELECT set_config('synchronous_commit', 'on', false), "
    "set_config('lock_timeout', '2s', false); "
    "SELECT pg_is_in_recovery()";

constexpr const char* prepared_sql = R"sql(
SELECT gid, coalesce(owner, ''), (extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint,
       coalesce(pg_has_role(owner, CASE WHEN current_setting('server_version_num')::int >= 160000
                                        THEN 'SET' ELSE 'MEMBER' END), false)
FROM pg_prepared_xacts
WHERE database = current_database() AND starts_with(gid, 'pgsled_')
UNION ALL SELECT '', 'now', (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false
UNION ALL SELECT '', '', 0, false WHERE EXISTS (SELECT FROM pg_locks WHERE NOT granted))sql";

// Who waits for whom, with the marks of those who have one. The second number of a mark's lock may
// be anything, the first begins where numbers of workers do (control/cancels.hpp).
constexpr const char* waits_sql = R"sql(
WITH marks AS (
  SELECT pid, classid::bigint AS client, objid::bigint AS began FROM pg_locks
  WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted
    AND classid::bigint >= 1048576 AND pid IS NOT NULL
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT w.pid, coalesce(m.client, 0), coalesce(m.began, 0),
       b.pid, coalesce(n.client, 0), coalesce(n.began, 0)
FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted AND pid IS NOT NULL LIMIT 1000) w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) b (pid)
LEFT JOIN marks m ON m.pid = w.pid LEFT JOIN marks n ON n.pid = b.pid
LIMIT 10000)sql";

const pg_error unused{"55000", "no place for decisions, and two_phase_commit is off", {}, {}};

class round {
 public:
  round(const commit_job& job, const std::atomic<bool>& stop)
      : job_(job), stop_(stop), links_(job.kept->of), found_(job.shards.size()) {
    links_.resize(job.shards.size());
  }

  commit_report run() {
    bool any_prepared = false;
    for (std::uint32_t shard = 0; shard < links_.size() && !stop_; ++shard) {
      if (const auto error = look(shard)) lose(shard, error->message);
      any_prepared = any_prepared || !found_[shard].prepared.empty();
    }
    if (stop_) return {};
    for (const auto& link : links_) {
      if (!link) continue;
      report_.problems.insert(report_.problems.end(), link->problems.begin(),
                              link->problems.end());
    }
    find_deadlocks();
    if (!any_prepared && job_.kept->until_look-- > 0) return std::move(report_);
    job_.kept->until_look = rounds_between_looks;
    // Only now the decisions: what is prepared without one has none yet.
    for (std::uint32_t shard = 0; shard < links_.size() && !stop_; ++shard) {
      if (!links_[shard]) continue;
      if (const auto error = read_decisions(shard)) lose(shard, error->message);
    }
    if (stop_) return {};
    for (commit::resolution& one : commit::resolve(job_.database, found_, bounds)) finish(one);
    return std::move(report_);
  }

 private:
  void lose(std::uint32_t shard, const std::string& why) {
    links_[shard].reset();
    found_[shard] = {false, why, {}, {}, 0};
    if (job_.decides) problem(shard, why);
  }
  void problem(std::uint32_t shard, const std::string& why) {
    report_.problems.push_back(fmt::format("shard {}: {}", shard, why));
  }

  std::optional<pg_error> open(std::uint32_t shard) {
    auto link = management::connection::open(job_.shards[shard], job_.tls, connect_timeout, stop_);
    if (!link) return link.error();
    const auto begun = link->query(begin_sql);
    if (!begun) return begun.error();
    if (begun->empty() || (*begun)[0][0] != "f") return pg_error{"25006", "a standby", {}, {}};
    // Without the functions there are no decisions to be read here, and none to be made.
    if (!job_.decides) {
      const auto ready = link->query(decision_schema_ready());
      if (!ready) return ready.error();
      if (ready->empty() || (*ready)[0][0] != "t") return unused;
    }
    if (auto error = make_decision_schema(*link)) {
      error->message = "no place for decisions, so that transactions over several shards cannot "
                       "commit (give a user of this database schema_admin = true whose server "
                       "role may create schema pgsled): " + error->message;
      return error;
    }
    links_[shard].emplace(commit_links::link{std::move(*link), {}});
    if (!job_.roles.empty()) check_roles(shard, *links_[shard]);
    return std::nullopt;
  }

  std::optional<pg_error> look(std::uint32_t shard) {
    const bool kept = links_[shard].has_value();
    if (!kept) {
      if (auto error = open(shard)) return error;
    }
    auto prepared = links_[shard]->connection.query(prepared_sql);
    if (!prepared && kept) {   // closed since the last round, perhaps
      links_[shard].reset();
      if (auto error = open(shard)) return error;
      prepared = links_[shard]->connection.query(prepared_sql);
    }
    if (!prepared) return prepared.error();
    for (const auto& row : *prepared) {
      if (row[0].empty() && row[1] == "now") {
        found_[shard].now = number(row[2]);
        continue;
      }
      if (row[0].empty()) {
        ++with_waits_;
        continue;
      }
      found_[shard].prepared.push_back({row[0], row[1], number(row[2]), row[3] == "t"});
    }
    return std::nullopt;
  }

  // A circle over several shards has a wait on each of them.
  void find_deadlocks() {
    std::vector<commit::mark> suspects;
    if (with_waits_ >= 2) {
      std::vector<commit::waits_for> waits;
      for (std::uint32_t shard = 0; shard < links_.size() && !stop_; ++shard) {
        if (!links_[shard]) continue;
        const auto rows = links_[shard]->connection.query(waits_sql);
        if (!rows) continue;
        for (const auto& row : *rows) {
          const auto at = [&](std::size_t i) { return static_cast<std::uint32_t>(number(row[i])); };
          waits.push_back({shard, {at(1), at(2)}, {at(4), at(5)}, at(0), at(3)});
        }
      }
      suspects = commit::deadlock_victims(waits);
    }
    for (const commit::mark& one : suspects) {
      const auto& before = job_.kept->suspects;
      if (std::find(before.begin(), before.end(), one) != before.end()) {
        report_.victims.push_back(one);
      }
    }
    job_.kept->suspects = std::move(suspects);
  }

  void check_roles(std::uint32_t shard, commit_links::link& kept) {
    management::connection& link = kept.connection;
    std::string names;
    for (const std::string& role : job_.roles) {
      names += (names.empty() ? "" : ",") + link.literal(role);
    }
    const auto rows = link.query(fmt::format(
        "SELECT rolname FROM pg_roles WHERE rolname IN ({}) AND NOT pg_has_role(oid, CASE WHEN "
        "current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) "
        "ORDER BY 1", names));
    if (!rows) return;
    for (const auto& row : *rows) {
      kept.problems.push_back(
          fmt::format("shard {}: commits of role \"{}\" could not be finished: \"{}\" may not "
                      "become it (GRANT it)", shard, row[0], job_.shards[shard].user));
    }
  }

  std::optional<pg_error> read_decisions(std::uint32_t shard) {
    auto& link = links_[shard]->connection;
    std::string keys;
    for (const auto& one : found_) {
      for (const auto& prepared : one.prepared) {
        const auto gid = commit::parse_gid(prepared.gid);
        if (!gid || gid->of.coordinator != shard) continue;
        keys += (keys.empty() ? "" : ",") + gid->of.key();   // of digits and `_`
      }
    }
    const auto rows = link.query(fmt::format(
        "SELECT key, outcome, participants, age_ms FROM pgsled.read_decisions({}, '{{{}}}', {})",
        link.literal(job_.database), keys, bounds.keep_rows));
    if (!rows) return rows.error();
    for (const auto& row : *rows) {
      commit::found_decision one;
      one.key = row[0];
      one.what = row[1] == "commit" ? commit::outcome::commit : commit::outcome::abort;
      one.participants = buckets_from_text(row[2]).value_or(std::vector<std::uint32_t>());
      one.age = number(row[3]);
      found_[shard].decisions.push_back(std::move(one));
    }
    found_[shard].reached = true;
    return std::nullopt;
  }

  void finish(commit::resolution& one) {
    while (const auto next = one.next()) {
      if (stop_) return;
      auto value = perform(*next);
      if (value) {
        one.succeeded(*value);
      } else {
        one.failed(value.error());
      }
    }
    if (one.of().id.empty()) {   // only a row to be forgotten: there may be more
      job_.kept->until_look = 0;
      return;
    }
    if (one.finished()) {
      report_.finished.push_back(fmt::format("{}: {} on shard {}", one.of().key(),
                                             one.state_name() == "committing" ? "committed"
                                                                              : "rolled back",
                                             fmt::join(one.participants(), ", ")));
      return;
    }
    open_transaction row;
    row.database = job_.database;
    row.key = one.of().mark.empty() ? one.of().id : one.of().key();
    row.state = one.state_name();
    row.reason = one.reason();
    row.coordinator = one.of().coordinator;
    row.participants = one.participants();
    row.age = one.age();
    for (const std::uint32_t shard : one.participants()) {
      for (const auto& prepared : found_[shard].prepared) {
        const auto gid = commit::parse_gid(prepared.gid);
        if (gid ? gid->of != one.of() : prepared.gid != one.of().id) continue;
        row.gids.push_back(prepared.gid);
        row.owner = prepared.owner;
      }
    }
    report_.open.push_back(std::move(row));
  }

  result<std::string> perform(const commit::step& next) {
    if (!links_[next.shard]) return failure("08006", "not reached");
    auto& link = links_[next.shard]->connection;
    const auto ask = [&](const std::string& sql) -> result<std::string> {
      const auto rows = link.query(sql);
      if (!rows) return tl::unexpected(rows.error());
      return rows->empty() ? std::string() : (*rows)[0][0];
    };
    switch (next.what) {
      case commit::step::kind::end_backend:
        return ask(fmt::format("SELECT pgsled.end_coordinator({})", link.literal(next.key)));
      case commit::step::kind::settle:
        return ask(fmt::format("SELECT pgsled.settle({}, {})", link.literal(next.key),
                               link.literal(job_.database)));
      case commit::step::kind::finish: {
        const auto become = ask(fmt::format("SET ROLE {}", quoted(next.owner)));
        if (!become) return become;
        auto done = ask(commit::statements::finish(next.gid, next.commit));
        if (const auto back = ask("RESET ROLE"); !back) {
          links_[next.shard].reset();   // kept for the next round it must not be
          return back;
        }
        return done;
      }
      case commit::step::kind::forget:
        return ask(fmt::format("SELECT pgsled.forget_decisions(ARRAY[{}], {})",
                               link.literal(next.key), bounds.keep_rows));
    }
    return failure("XX000", "no such step");
  }

  static std::string quoted(const std::string& role) {
    std::string made = "\"";
    for (const char c : role) made += c == '"' ? std::string("\"\"") : std::string(1, c);
    return made + '"';
  }

  const commit_job& job_;
  const std::atomic<bool>& stop_;
  std::vector<std::optional<commit_links::link>>& links_;
  std::vector<commit::shard_findings> found_;
  commit_report report_;
  std::size_t with_waits_ = 0;   // shards on which somebody waits for a lock
};

}  // namespace

std::optional<pg_error> make_decision_schema(management::connection& link) {
  const auto ready = link.query(decision_schema_ready());
  if (!ready) return ready.error();
  if (!ready->empty() && (*ready)[0][0] == "t") return std::nullopt;
  const auto made = link.query(decision_schema());
  return made ? std::nullopt : std::optional(made.error());
}

commit_report resolve_commits(const commit_job& job, const std::atomic<bool>& stop) {
  return round(job, stop).run();
}

}  // namespace pgsled::router
