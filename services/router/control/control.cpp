#include "services/router/control/control.hpp"

#include <algorithm>

namespace pgsled::router {

control::control(std::uint64_t epoch, std::int64_t now)
    : epoch_(epoch), started_(now), last_tick_(now) {
  budgets_.hold_growth(true);
}

void control::configure(config::configuration config) {
  config_ = std::move(config);
  configured_ = epoch_;
  topology_ = make_topology(config_, ids_, book_);
  for (auto it = states_.begin(); it != states_.end();) {
    it = database(it->first) == nullptr ? states_.erase(it) : std::next(it);
  }
  for (auto& [name, state] : states_) {
    // Before anybody is told: no snapshot may send a key to a shard that is not in the file.
    const auto shards = database(name)->shards;
    const auto& map = state.bucket_map;
    if (map.empty() || *std::max_element(map.begin(), map.end()) < shards) continue;
    state.refused = "the stored shard map of database \"" + name +
                    "\" names more shards than the file has";
    state.bucket_map.clear();
  }
  stale_ = true;
}

std::optional<pg_error> control::objection(const config::configuration& next) const {
  for (const auto& [name, state] : states_) {
    const std::uint32_t shards = shards_of(next, name);
    const bool only = std::any_of(
        next.databases.begin(), next.databases.end(),
        [&name = name](const auto& one) { return one.name == name && one.resharding_only; });
    if (!state.other.empty() && (shards == 0 || only != database(name)->resharding_only)) {
      return pg_error{"55006", "database \"" + name + "\": it takes part in the move " +
                                   state.moving + ", and has to stay in the file as it is",
                      "Wait for its end, or abort it.", {}};
    }
    if (shards == 0) continue;   // it is not served any more
    for (std::uint32_t shard = shards; shard < database(name)->shards; ++shard) {
      const auto owned = std::count(state.bucket_map.begin(), state.bucket_map.end(), shard);
      if (owned == 0) continue;
      return pg_error{"55000", "database \"" + name + "\": shard " + std::to_string(shard) +
                                   " is not in the file any more, and owns " +
                                   std::to_string(owned) + " of " +
                                   std::to_string(state.bucket_map.size()) + " buckets",
                      "Empty it first: pgsled reshard remove-shard " + std::to_string(shard), {}};
    }
    if (!state.moving.empty() && shards != database(name)->shards) {
      return pg_error{"55006", "database \"" + name + "\": its shards cannot be others while "
                                   "the move " + state.moving + " is under way",
                      "Wait for its end, or abort it.", {}};
    }
  }
  return std::nullopt;
}

void control::set_state(const std::string& name, database_state state) {
  database_state& kept = states_[name];
  if (kept == state) return;
  kept = std::move(state);
  stale_ = true;
}

membership::hello_outcome control::hello(const std::string& from, byte_span json,
                                         std::uint64_t has_epoch, std::int64_t now) {
  auto said = snapshot::from_json<snapshot::hello>(as_text(json));
  if (!said) return {membership::greeting::refused, said.error().message};
  // It heeds nothing older. Epochs count from a clock, which may have been set back since an
  // earlier router, of which it may have heard more than it says.
  constexpr std::uint64_t no_clock = std::uint64_t{1} << 62, unacknowledged = 1000;
  if (has_epoch > epoch_ && has_epoch < no_clock) epoch_ = has_epoch + unacknowledged;
  const auto budgets_it_has = said->budgets;
  const bool is_pooler = said->service == "pooler";
  const auto outcome = members_.hello(from, std::move(*said), now);
  switch (outcome.what) {
    case membership::greeting::refused: return outcome;
    case membership::greeting::repeated: break;
    case membership::greeting::replaced: budgets_.dropped(from); [[fallthrough]];
    case membership::greeting::joined:
      if (is_pooler) budgets_.adopt(from, budgets_it_has);
      break;
  }
  if (has_epoch != 0 && outcome.what == membership::greeting::joined &&
      now - started_ < succession_ms) {
    succeeding_ = true;
  }
  stale_ = true;
  return outcome;
}

void control::bye(const std::string& from) {
  if (members_.bye(from)) stale_ = true;
}

void control::forget(const std::string& from) {
  if (!members_.forget(from)) return;
  budgets_.dropped(from);
  stale_ = true;
}

void control::acknowledge(const std::string& from, std::uint64_t epoch,
                          const std::vector<std::pair<pool_number, std::uint32_t>>& over,
                          std::vector<std::string> drained) {
  if (member* who = members_.find(from)) who->drained = std::move(drained);
  // Before the shares it acknowledges are counted. What it has is so whatever the epoch.
  if (budgets_.over(from, over)) stale_ = true;
  if (!members_.acknowledge(from, epoch)) return;
  if (budgets_.acknowledged(from, epoch)) stale_ = true;
}

void control::tick(std::int64_t now) {
  // A router that was stopped or starved did not hear; that was not the others' silence.
  constexpr std::int64_t gap = 1000;
  if (now - last_tick_ > gap) members_.forgive(now - last_tick_);
  last_tick_ = now;
  if (succeeding_ && now - started_ >= succession_ms) succeeding_ = false;
  if (holding_ && now - started_ >= silence_ms) {
    holding_ = false;
    budgets_.hold_growth(false);
    if (budgets_.anything_pending()) stale_ = true;
  }
  for (std::string& name : members_.expire(now)) {
    budgets_.dropped(name);
    stale_ = true;
    gone_.push_back(std::move(name));
  }
}

std::string control::snapshot_for(const member& who, const shares& given,
                                  snapshot::frontend& of_frontends) const {
  if (who.hello.service == "frontend") {
    of_frontends.holder = who.holder;
    return snapshot::to_json(of_frontends);
  }
  if (who.hello.service == "pooler") {
    return snapshot::to_json(
        pooler_snapshot(config_, topology_, members_, who, given, states_, client_keys_));
  }
  return snapshot::to_json(replicator_snapshot(config_, topology_, members_, who, configured_,
                                               states_, client_keys_));
}

std::vector<control::outgoing> control::refresh() {
  stale_ = false;
  const std::uint64_t next = epoch_ + 1;
  const shares given = budgets_.assign(wanted_shares(topology_, members_), next);
  snapshot::frontend of_frontends =
      frontend_snapshot(config_, topology_, members_, given, states_);
  of_frontends.login_seed = book_.seed();
  std::vector<outgoing> out;
  for (auto& [name, who] : members_.all()) {
    std::string json = snapshot_for(who, given, of_frontends);
    if (json == who.sent) continue;
    out.push_back({name, who.sent.empty() ? bus::kind::welcome : bus::kind::config, next, json});
    who.sent = std::move(json);
    who.sent_epoch = next;
    if (who.hello.service == "cli") who.acked_epoch = next;
  }
  if (out.empty()) return out;
  epoch_ = next;
  // What is compared has epoch 0; what is sent names it. The field comes first.
  static constexpr std::string_view zero = R"({"epoch":0)";
  for (outgoing& one : out) {
    PGSLED_ASSERT(one.json.starts_with(zero));
    one.json.replace(0, zero.size(), R"({"epoch":)" + std::to_string(next));
  }
  std::stable_partition(out.begin(), out.end(), [&](const outgoing& one) {
    return members_.find(one.to)->hello.service == "pooler";
  });
  return out;
}

std::vector<std::string> control::behind_fence(const std::string& fence) const {
  std::vector<std::string> names;
  for (const auto& [name, who] : members_.all()) {
    // A draining one, too: its clients may be in transactions.
    if (who.hello.service != "frontend" && who.hello.service != "pooler") continue;
    const bool there = who.up_to_date() && who.sent_epoch != 0 &&
                       std::find(who.drained.begin(), who.drained.end(), fence) !=
                           who.drained.end();
    if (!there) names.push_back(name);
  }
  return names;
}

std::optional<pg_error> cluster_objection(const control& truth, const std::string& database,
                                          const std::string& to) {
  const auto refused = [](std::string why, std::string hint = {}) {
    return pg_error{"55000", std::move(why), std::move(hint), {}};
  };
  for (const std::string& name : {database, to}) {
    if (truth.database(name) == nullptr) {
      return pg_error{"3D000", "there is no database \"" + name + "\"", {}, {}};
    }
  }
  if (database == to) return refused("a database cannot be moved to itself");
  if (!truth.database(to)->resharding_only) {
    return refused("clients may log in to database \"" + to + "\"",
                   "Mark its hosts in [[databases]] with resharding_only = true, and RELOAD.");
  }
  if (truth.database(database)->resharding_only) {
    return refused("database \"" + database + "\" is for resharding only itself");
  }
  for (const std::string& name : {database, to}) {
    if (!shard_addresses(truth.topology(), name).empty()) continue;
    return refused("a shard of database \"" + name + "\" has no primary host, or no user is known "
                   "for it",
                   "Name a user for both in users.toml, best with schema_admin = true.");
  }
  for (const config::database& one : truth.configuration().databases) {
    for (const config::database& host : truth.configuration().databases) {
      const bool ours = host.name == database || host.name == to;
      if (!ours || one.name == host.name || one.host != host.host || one.port != host.port ||
          one.database_name != host.database_name) {
        continue;
      }
      return refused("databases \"" + host.name + "\" and \"" + one.name + "\" are the same "
                     "database of one server: what is written by one name would go past the "
                     "other's fence",
                     "Take one of the two out of [[databases]].");
    }
  }
  return std::nullopt;
}

const database_state* control::state(const std::string& name) const {
  const auto found = states_.find(name);
  return found == states_.end() ? nullptr : &found->second;
}

const database_definition* control::database(const std::string& name) const {
  for (const database_definition& one : topology_.databases) {
    if (one.name == name) return &one;
  }
  return nullptr;
}

const pool_definition* control::pool_definition_of(std::uint32_t id) const {
  for (const pool_definition& one : topology_.pools) {
    if (one.server.id == id) return &one;
  }
  return nullptr;
}

const snapshot::server_pool* control::pool(std::uint32_t id) const {
  const pool_definition* found = pool_definition_of(id);
  return found == nullptr ? nullptr : &found->server;
}

}  // namespace pgsled::router
