#include "services/router/shards/service.hpp"

#include <algorithm>
#include <set>

#include "common/log/log.hpp"
#include "services/router/control/configuration.hpp"
#include "services/router/control/placement_change.hpp"
#include "services/router/shards/catalog.hpp"

namespace pgsled::router {

namespace {

constexpr std::int64_t retry_unknown = 1000, retry_incomplete = 5000;
// ms; longer than a fence can last
constexpr std::int64_t keep_for = move_desk::longest_drain + move_desk::longest_fence + 10'000;

// A kind of key that this version cannot place: the planner refuses a type it does not know.
constexpr const char* unknown_type = "of a rule this version does not know";

std::vector<plan_desk::definition> definitions(const control& truth) {
  std::vector<plan_desk::definition> made;
  for (const database_definition& from : truth.topology().databases) {
    if (!from.sharded) continue;
    plan_desk::definition one;
    one.name = from.name;
    one.shards = from.shards;
    for (const config::sharded_table& table : truth.configuration().sharded_tables) {
      if (table.database != from.name) continue;
      one.tables.push_back({table.schema, table.name, table.column,
                            table.acted_on ? table.data_type : unknown_type, table.hasher,
                            table.mapping ? table.mapping->id : 0});
    }
    for (const pool_definition& pool : truth.topology().pools) {
      const auto& server = pool.server;
      if (server.database == from.name && server.user != server.server_user) {
        one.roles.insert_or_assign(server.user, server.server_user);
      }
    }
    made.push_back(std::move(one));
  }
  return made;
}

std::vector<std::uint32_t> holding(const control& truth, const std::string& database) {
  std::set<std::uint32_t> shards;
  if (const database_state* known = truth.state(database)) {
    shards.insert(known->bucket_map.begin(), known->bucket_map.end());
  }
  for (const config::sharded_table& table : truth.configuration().sharded_tables) {
    if (table.database != database || !table.mapping) continue;
    for (const auto& entry : table.mapping->list) shards.insert(entry.second);
    for (const auto& range : table.mapping->ranges) shards.insert(range.shard);
    if (table.mapping->fallback >= 0) {
      shards.insert(static_cast<std::uint32_t>(table.mapping->fallback));
    }
  }
  return {shards.begin(), shards.end()};
}

}  // namespace

std::int64_t steady_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

shard_service::shard_service(net::reactor& loop, control& truth, plan_desk& plans,
                             std::function<void()> changed)
    : loop_(loop), truth_(truth), plans_(plans), changed_(std::move(changed)) {}

void shard_service::stop() {
  map_worker_.stop();
  catalog_worker_.stop();
}

management::tls shard_service::tls() const {
  const config::general& general = truth_.configuration().general;
  return {general.tls_verify, general.tls_server_ca_certificate, general.tls_server_certificate,
          general.tls_server_private_key};
}

void shard_service::configure() {
  const auto defined = definitions(truth_);
  std::map<std::string, map_state> kept;
  for (const auto& one : defined) {
    if (const auto found = maps_.find(one.name); found != maps_.end()) {
      kept[one.name] = std::move(found->second);
    }
  }
  maps_.clear();
  for (const auto& one : defined) maps_[one.name] = std::move(kept[one.name]);
  plans_.configure(defined, steady_ms());
  for (auto& [name, one] : maps_) {
    one.settled = one.placed = false;   // hosts, shards and tables may be others now
    ask_map(name, one);
    publish(name);
    plans_.refuse(name, truth_.state(name)->refused);
    plans_.map_known(name, !truth_.state(name)->bucket_map.empty(), one.reason, steady_ms());
  }
}

void shard_service::ask_map(const std::string& database, map_state& one) {
  if (one.under_way) {
    one.again = true;
    return;
  }
  const database_state* known = truth_.state(database);
  if (known != nullptr && (known->names_unknown || !known->names_refused.empty())) {
    one.reason = "which servers it has is not known";
    one.retry_at = steady_ms() + retry_incomplete;
    return;
  }
  map_job job{database, shard_addresses(truth_.topology(), database), tls(),
              moves_.fence(database), commits_in_two_phases(truth_.configuration()),
              placed_tables(truth_.configuration(), database),
              truth_.configuration().resharding.placed_by_hand, one.placed,
              moves_.names(database)};
  if (job.shards.empty()) {
    one.reason = "a shard without a primary host, or no user for database \"" + database + "\"";
    one.retry_at = steady_ms() + retry_incomplete;
    return;
  }
  one.under_way = true;
  map_worker_.put(database, [this, job = std::move(job)](const std::atomic<bool>& stop) {
    map_decision made = settle_map(job, take_kept(job.database), stop);
    loop_.post([this, name = job.database, made = std::move(made)] { map_known(name, made); });
  });
}

kept_links shard_service::take_kept(const std::string& database) {
  std::erase_if(kept_, [](const auto& one) { return steady_ms() - one.second.since > keep_for; });
  const auto found = kept_.find(database);
  return found == kept_.end() ? kept_links() : std::move(kept_.extract(found).mapped());
}

void shard_service::work(const move_work& what) {
  map_job job{what.database, shard_addresses(truth_.topology(), what.database), tls(), {}};
  if (job.shards.empty()) {
    return moves_.worked(what, failure("57P03", "a shard of database \"" + what.database +
                                                    "\" has no primary host"));
  }
  // A name of its own: nothing may take its place in the queue.
  map_worker_.put(what.database + '\0' + what.job + '\0' + what.fence,
                  [this, job = std::move(job), what](const std::atomic<bool>& stop) {
    kept_links& keep = kept_[job.database];
    keep.since = steady_ms();
    auto how = do_move_work(job, what, keep, stop);
    loop_.post([this, what, how = std::move(how)] { moves_.worked(what, how); });
  });
}

void shard_service::settle(const std::string& database) {
  const auto found = maps_.find(database);
  if (found == maps_.end()) {
    map_decision none;
    none.reason = "it is not sharded";
    return moves_.settled(database, none);
  }
  found->second.settled = false;
  ask_map(database, found->second);
}

void shard_service::map_known(const std::string& database, map_decision made) {
  const auto found = maps_.find(database);
  if (found == maps_.end()) return;
  map_state& one = found->second;
  one.under_way = false;
  // Of an older configuration, or read before the fence was to go.
  if (std::exchange(one.again, false)) return ask_map(database, one);
  database_state state = truth_.state(database) ? *truth_.state(database) : database_state{};
  const std::string before = one.reason;
  one.reason = made.reason;
  const map_decision said = made;
  switch (made.what) {
    case map_decision::outcome::known:
      one.settled = made.complete;
      one.placed = made.complete;
      if (!made.write_to.empty() && made.reason.empty()) {
        log::info("router", "shard map of \"{}\" stored on {} shard{}", database,
                  made.write_to.size(), made.write_to.size() == 1 ? "" : "s");
      }
      state.bucket_map = std::move(made.buckets);
      state.map_epoch = made.epoch;
      state.refused.clear();
      break;
    case map_decision::outcome::unknown: break;   // what was known before still holds
    case map_decision::outcome::refused:
      state.bucket_map.clear();
      state.refused = one.reason;
      break;
  }
  if (!one.reason.empty() && one.reason != before) {
    const char* how = !state.refused.empty()      ? "refused"
                      : state.bucket_map.empty() ? "not known yet"
                                                 : "not settled";
    log::error("router", "shard map of \"{}\" is {}: {}", database, how, one.reason);
  }
  one.retry_at = steady_ms() + (made.what == map_decision::outcome::unknown ? retry_unknown
                                                                            : retry_incomplete);
  plans_.refuse(database, state.refused);
  const bool known = !state.bucket_map.empty();
  truth_.set_state(database, std::move(state));
  moves_.settled(database, said);   // a fence falls in the same snapshot that has the new map
  changed_();
  // After the snapshot with the map, so that no plan reaches a frontend before it.
  loop_.defer([this, database, known, why = one.reason] {
    plans_.map_known(database, known, why, steady_ms());
  });
}

void shard_service::load_catalog(const std::string& database) {
  const auto addresses = shard_addresses(truth_.topology(), database);
  const std::int64_t began = steady_ms();
  const auto of = addresses.empty() ? management::address{} : addresses.front();
  const auto deliver = [this, database, began, of](result<plan::catalog> got) {
    loop_.post([this, database, began, got = std::move(got), of] {
      // The name may be that of other servers by now.
      const auto now = shard_addresses(truth_.topology(), database);
      if (!of.host.empty() && (now.empty() || now.front() != of)) return load_catalog(database);
      if (!got) log::warn("router", "catalog of \"{}\": {}", database, got.error().message);
      if (got) tell_triggers(database, got->key_triggers);
      if (plans_.loaded(database, got, began, steady_ms())) publish(database);
      changed_();
    });
  };
  if (addresses.empty()) {
    return deliver(failure("57P03", "no host or no user is known for its first shard"));
  }
  catalog_job job{database, addresses, holding(truth_, database), {}, tls()};
  for (const auto& one : definitions(truth_)) {
    if (one.name == database) job.tables = one.tables;
  }
  catalog_worker_.put(database, [job = std::move(job), deliver](const std::atomic<bool>& stop) {
    deliver(read_catalog(job, stop));
  });
}

// Once, until they are others.
void shard_service::tell_triggers(const std::string& database,
                                  const std::vector<std::string>& triggers) {
  if (std::exchange(told_triggers_[database], triggers) == triggers) return;
  for (const auto& one : triggers) {
    log::warn("router",
              "database \"{}\": a trigger may change the sharding key of rows whose shard has been "
              "chosen before, which would leave them on the wrong one: {}",
              database, one);
  }
}

void shard_service::publish(const std::string& database) {
  database_state state = truth_.state(database) ? *truth_.state(database) : database_state{};
  state.catalog = plans_.version(database);
  truth_.set_state(database, std::move(state));
}

void shard_service::tick(std::int64_t now) {
  for (auto& [name, one] : maps_) {
    if (!one.settled && !one.under_way && now >= one.retry_at) ask_map(name, one);
  }
}

std::map<std::string, std::string> shard_service::unsettled() const {
  std::map<std::string, std::string> names;
  for (const auto& [name, one] : maps_) {
    const database_state* state = truth_.state(name);
    if (state != nullptr && !state->bucket_map.empty()) continue;
    names[name] = one.reason.empty() ? "not read yet" : one.reason;
  }
  return names;
}

}  // namespace pgsled::router
