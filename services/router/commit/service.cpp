#include "services/router/commit/service.hpp"

#include <algorithm>

#include "common/log/log.hpp"
#include "services/router/control/configuration.hpp"
#include "services/router/shards/service.hpp"

namespace pgsled::router {

namespace {

// With the 6 s after which something prepared is an orphan it is finished within 10 s; a deadlock,
// which has to be seen twice, within 3.
constexpr std::int64_t between_rounds = 1000;
// While two_phase_commit is off: what it has prepared before is finished all the same.
constexpr std::int64_t between_rounds_unused = 30'000;
// While clients are held back by a fence, perhaps by what a dead replicator has left.
constexpr std::int64_t between_rounds_fenced = 250;

}  // namespace

commit_service::commit_service(net::reactor& loop, control& truth,
                               std::function<void(const commit::mark&)> cancel)
    : loop_(loop), truth_(truth), cancel_(std::move(cancel)) {}

void commit_service::configure() {
  std::map<std::string, database_rounds> kept;
  for (const database_definition& one : truth_.topology().databases) {
    if (!one.sharded || one.shards < 2) continue;
    if (const auto found = rounds_.find(one.name); found != rounds_.end()) {
      kept[one.name] = std::move(found->second);
    } else {
      kept[one.name];
    }
  }
  rounds_ = std::move(kept);
  // Two-phase commit may be on now, and was off: then it was not looked for more than now and then.
  for (auto& [name, one] : rounds_) one.next_at = 0;
}

void commit_service::tick(std::int64_t now) {
  for (auto& [name, one] : rounds_) {
    // A shard may be the wrong one until the map says that it is not.
    const database_state* state = truth_.state(name);
    if (state == nullptr || state->bucket_map.empty() || one.under_way) continue;
    if (now >= one.next_at) ask(name, one);
  }
}

void commit_service::ask(const std::string& database, database_rounds& one) {
  const config::general& general = truth_.configuration().general;
  commit_job job{database, shard_addresses(truth_.topology(), database), {},
                 {general.tls_verify, general.tls_server_ca_certificate,
                  general.tls_server_certificate, general.tls_server_private_key},
                 nullptr, commits_in_two_phases(truth_.configuration())};
  one.next_at = steady_ms() + between_rounds;
  if (job.shards.empty()) return;   // the map's service says why
  if (one.shards != job.shards) {
    one.shards = job.shards;
    one.links = std::make_shared<commit_links>();
  }
  job.kept = one.links;
  for (const pool_definition& pool : truth_.topology().pools) {
    if (pool.server.database != database) continue;
    if (std::find(job.roles.begin(), job.roles.end(), pool.server.server_user) ==
        job.roles.end()) {
      job.roles.push_back(pool.server.server_user);
    }
  }
  one.under_way = true;
  worker_.put(database, [this, job = std::move(job)](const std::atomic<bool>& stop) {
    commit_report made = resolve_commits(job, stop);
    loop_.post([this, name = job.database, made = std::move(made)] { heard(name, made); });
  });
}

void commit_service::heard(const std::string& database, const commit_report& made) {
  const auto found = rounds_.find(database);
  if (found == rounds_.end()) return;
  database_rounds& one = found->second;
  one.under_way = false;
  const database_state* state = truth_.state(database);
  const bool in_use = commits_in_two_phases(truth_.configuration()) || !made.open.empty();
  one.next_at = steady_ms() + (state != nullptr && !state->fence.empty() ? between_rounds_fenced
                               : in_use                                  ? between_rounds
                                                                         : between_rounds_unused);
  for (const commit::mark& victim : made.victims) cancel_(victim);
  resolved_ += made.finished.size();
  for (const std::string& text : made.finished) {
    log::warn("router", "orphaned transaction of \"{}\" resolved, {}", database, text);
  }
  std::set<std::string> problems(made.problems.begin(), made.problems.end());
  for (const open_transaction& open : made.open) {
    if (!open.reason.empty()) problems.insert(open.key + ": " + open.state + ": " + open.reason);
  }
  for (const std::string& text : problems) {
    if (one.problems.contains(text)) continue;
    log::warn("router", "commits over shards of \"{}\": {}", database, text);
  }
  one.problems = std::move(problems);
  one.open = made.open;
}

std::vector<open_transaction> commit_service::open() const {
  std::vector<open_transaction> all;
  for (const auto& [name, one] : rounds_) all.insert(all.end(), one.open.begin(), one.open.end());
  return all;
}

}  // namespace pgsled::router
