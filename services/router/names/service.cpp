#include "services/router/names/service.hpp"

#include <algorithm>

#include "common/log/log.hpp"
#include "services/router/shards/service.hpp"

namespace pgsled::router {

namespace {

constexpr std::string_view forgotten = "it may have been handed over";

constexpr std::int64_t retry_unknown = 1000, retry_incomplete = 5000;

// Of the first shard of a database of the file: what is read of it is kept under this.
std::string server_of(const config::configuration& file, const std::string& database) {
  const config::database* host = shard_host(file, database, 0);
  return host == nullptr ? std::string()
                         : host->host + '\0' + std::to_string(host->port) + '\0' +
                               host->database_name;
}

std::vector<std::string> names_of(const config::configuration& file) {
  std::vector<std::string> names;
  for (const config::database& one : file.databases) {
    if (std::find(names.begin(), names.end(), one.name) == names.end()) names.push_back(one.name);
  }
  return names;
}

std::string name_of(const cluster_pair& pair) {
  return pair.database + '\0' + pair.other + '\0' + std::to_string(pair.epoch);
}

}  // namespace

names_service::names_service(net::reactor& loop, control& truth, callbacks calls)
    : loop_(loop), truth_(truth), calls_(std::move(calls)) {}

bool names_service::wanted(const config::configuration& file) const {
  return !readings_.empty() ||
         std::any_of(file.databases.begin(), file.databases.end(),
                     [](const auto& one) { return one.resharding_only; });
}

std::vector<file_cluster> names_service::clusters_of(const config::configuration& file) const {
  std::vector<file_cluster> clusters;
  for (const std::string& name : names_of(file)) {
    file_cluster one;
    one.name = name;
    one.first.problem = "not read yet";
    const config::database* host = shard_host(file, name, 0);
    one.resharding_only = host != nullptr && host->resharding_only;
    if (const auto read = readings_.find(server_of(file, name)); read != readings_.end()) {
      one.first = read->second;
    }
    clusters.push_back(std::move(one));
  }
  return clusters;
}

result<config::configuration> names_service::named(const config::configuration& file) const {
  // Nobody must be connected by what the file says meanwhile.
  for (const auto& [server, read] : readings_) {
    if (read.reached || read.problem != forgotten) continue;
    return failure("57P03", "a database is being handed over to other servers, and which have its "
                            "name is just looked up: try again in a moment");
  }
  const auto decided = decide_names(clusters_of(file));
  if (!decided.refused.empty()) {
    return failure("55000", decided.refused.begin()->second);
  }
  return with_names(file, decided);
}

void names_service::configure(config::configuration file) {
  const auto& served = truth_.configuration();
  file_ = std::move(file);
  // What this router has served until now under that name it may serve until more is known: no
  // name is handed over without it.
  for (const std::string& name : names_of(file_)) {
    const auto server = server_of(file_, name);
    if (configured_ && !readings_.contains(server) && unknown(name) == nullptr &&
        server_of(served, name) == server) {
      readings_[server].reached = true;
    }
  }
  configured_ = true;
  std::map<std::string, names_reading> kept;
  for (const std::string& name : names_of(file_)) {
    if (auto read = readings_.extract(server_of(file_, name))) kept.insert(std::move(read));
  }
  readings_ = std::move(kept);
  apply(true);
  if (wanted(file_)) ask();
}

void names_service::ask() {
  if (under_way_) {
    again_ = true;
    return;
  }
  names_job job;
  const config::general& general = truth_.configuration().general;
  job.tls = {general.tls_verify, general.tls_server_ca_certificate,
             general.tls_server_certificate, general.tls_server_private_key};
  job.keep_fences = calls_.fences();
  for (const std::string& name : names_of(file_)) {
    job.clusters.push_back({name, server_of(file_, name),
                            shard_addresses(truth_.topology(), decided_.served(name))});
  }
  under_way_ = true;
  asked_ = std::exchange(asking_, {});
  worker_.put("names", [this, job = std::move(job)](const std::atomic<bool>& stop) {
    read_names(job, stop, [this](const std::string& server, const names_reading& read) {
      loop_.post([this, server, read] { found_one(server, read); });
    });
    loop_.post([this] { found_all(); });
  });
}

void names_service::found_one(const std::string& server, const names_reading& read) {
  if (again_) return;   // of an older file, or read before a fence was to go
  // What was read before still holds for one that is away.
  const auto before = readings_.find(server);
  if (!read.reached && before != readings_.end() && before->second.reached) return;
  readings_[server] = read;
  if (decided_.unknown.empty()) return;
  // Those that are known now need not wait for those that are not.
  looked_ = true;
  apply(false);
  calls_.changed();
}

void names_service::found_all() {
  under_way_ = false;
  looked_ = true;
  retry_at_ = steady_ms() + retry_incomplete;
  if (std::exchange(again_, false)) {
    asking_.insert(asking_.end(), std::make_move_iterator(asked_.begin()),
                   std::make_move_iterator(asked_.end()));
    asked_.clear();
    return ask();
  }
  apply(false);
  if (!decided_.unknown.empty()) retry_at_ = steady_ms() + retry_unknown;
  for (const asker& one : std::exchange(asked_, {})) {
    one.done(decided_.pair_of(one.database) != nullptr);
  }
  complete();
  calls_.changed();
}

void names_service::apply(bool new_file) {
  const auto before = std::exchange(decided_, decide_names(clusters_of(file_)));
  auto next = with_names(file_, decided_);
  const auto& served = truth_.configuration();
  std::set<std::string> changed;
  for (const std::string& name : names_of(next)) {
    const bool learnt = (before.unknown.contains(name) || before.refused.contains(name)) &&
                        unknown(name) == nullptr;
    if (learnt) changed.insert(name);
    if (server_of(served, name) == server_of(next, name)) continue;
    for (const std::string& other : names_of(served)) {
      if (other == name || server_of(served, other) != server_of(next, name)) continue;
      changed.insert(name);
      log::info("router", "database \"{}\" is served by the hosts that \"{}\" had", name, other);
    }
  }
  if (new_file || !changed.empty()) truth_.configure(std::move(next));
  publish();
  if (new_file || !changed.empty()) calls_.serve(changed);
  for (const cluster_pair& pair : decided_.pairs) {
    if (!pair.job.empty()) calls_.registered(pair);
  }
}

// What the snapshots say of names: who waits, who is refused, and by what names all is served.
void names_service::publish() {
  for (const std::string& name : names_of(file_)) {
    database_state state = truth_.state(name) ? *truth_.state(name) : database_state{};
    const auto unknown = decided_.unknown.find(name), refused = decided_.refused.find(name);
    state.names_unknown = unknown != decided_.unknown.end();
    state.names_refused = refused != decided_.refused.end() ? refused->second : std::string();
    const cluster_pair* pair = decided_.pair_of(name);
    if (pair != nullptr) state.names_epoch = pair->epoch;
    truth_.set_state(name, std::move(state));
    const std::string why = unknown != decided_.unknown.end()   ? unknown->second
                            : refused != decided_.refused.end() ? refused->second
                                                                : std::string();
    // Before the first look nothing is wrong yet.
    if (looked_ && why != std::exchange(told_[name], why) && !why.empty()) {
      log::error("router", "database \"{}\" is not served: {}", name, why);
    }
  }
}

const std::string* names_service::unknown(const std::string& database) const {
  for (const auto* map : {&decided_.unknown, &decided_.refused}) {
    if (const auto found = map->find(database); found != map->end()) return &found->second;
  }
  return nullptr;
}

pair_job names_service::job_of(const cluster_pair& pair) const {
  const config::general& general = truth_.configuration().general;
  pair_job job;
  job.pair = pair;
  job.database = shard_addresses(truth_.topology(), pair.database);
  job.other = shard_addresses(truth_.topology(), pair.other);
  const auto sharded = [&](const std::string& name) {
    const database_definition* known = truth_.database(name);
    return known != nullptr && known->sharded;
  };
  job.database_sharded = sharded(pair.database);
  job.other_sharded = sharded(pair.other);
  job.tls = {general.tls_verify, general.tls_server_ca_certificate,
             general.tls_server_certificate, general.tls_server_private_key};
  return job;
}

void names_service::complete() {
  if (completing_) return;
  for (const cluster_pair& pair : decided_.pairs) {
    if (complete_.contains(name_of(pair))) continue;
    completing_ = true;
    worker_.put("complete", [this, job = job_of(pair)](const std::atomic<bool>& stop) {
      auto how = complete_names(job, stop);
      loop_.post([this, pair = job.pair, how = std::move(how)] {
        completing_ = false;
        if (how) {
          complete_.insert(name_of(pair));
          return complete();
        }
        log::warn("router", "not every server of \"{}\" and \"{}\" knows its name yet: {}",
                  pair.database, pair.other, how.error().message);
      });
    });
    return;
  }
}

void names_service::work(const move_work& what) {
  cluster_pair pair{what.database, what.other, 0, {}, false};
  if (const cluster_pair* known = decided_.pair_of(what.database);
      known != nullptr && known->database == what.database && known->other == what.other) {
    pair = *known;
  }
  // What another pair has counted is gone on from, so that later records are always the higher.
  for (const auto& [server, read] : readings_) {
    if (!read.record || what.what != move_work::kind::begin) continue;
    const auto& name = read.record->name;
    if (name == what.database || name == what.other) {
      pair.epoch = std::max(pair.epoch, read.record->epoch);
    }
  }
  auto job = job_of(pair);
  if (job.database.empty() || job.other.empty()) {
    return calls_.worked(what, failure("57P03", "a shard of database \"" +
                                                    (job.database.empty() ? what.database
                                                                          : what.other) +
                                                    "\" has no primary host, or no user"));
  }
  // From the fence on the names may be others without a word.
  if (what.what == move_work::kind::set_fence) forget(what.database, what.other);
  worker_.put(what.job + '\0' + what.fence, [this, job = std::move(job), what](const auto& stop) {
    auto how = do_cluster_work(job, what, stop);
    loop_.post([this, what, how = std::move(how)] {
      if (under_way_) again_ = true;   // it may have read what is not so any more
      if (how && what.what == move_work::kind::end) ended(what.job);
      calls_.worked(what, how);
    });
  });
}

void names_service::ended(const std::string& job) {
  for (auto& [server, read] : readings_) {
    if (read.record && read.record->job == job) read.record->job.clear();
  }
  for (cluster_pair& pair : decided_.pairs) {
    if (pair.job == job) pair.job.clear();
  }
}

// What was read of these servers holds no more.
void names_service::forget(const std::string& database, const std::string& other) {
  for (const std::string& name : names_of(file_)) {
    const auto served = decided_.served(name);
    if (served != database && served != other) continue;
    readings_[server_of(file_, name)] = {false, std::string(forgotten), {}};
  }
}

void names_service::look_up(const std::string& database, const std::string& other,
                            std::function<void(bool)> done) {
  forget(database, other);
  asking_.push_back({database, std::move(done)});
  ask();
}

void names_service::tick(std::int64_t now) {
  if (under_way_ || now < retry_at_ || !wanted(file_)) return;
  const auto clusters = clusters_of(file_);
  const bool all = std::all_of(clusters.begin(), clusters.end(),
                               [](const auto& one) { return one.first.reached; });
  const bool done =
      std::all_of(decided_.pairs.begin(), decided_.pairs.end(),
                  [&](const auto& pair) { return complete_.contains(name_of(pair)); });
  if (all && done) return;
  retry_at_ = now + retry_incomplete;
  if (all) return complete();
  ask();
}

}  // namespace pgsled::router
