// What a snapshot of the router changes in a worker: lines to poolers and replicators, pools, what
// users can reach, fences.

#include <set>

#include "common/log/log.hpp"
#include "services/frontend/client/client.hpp"
#include "services/frontend/leases/relay_line.hpp"
#include "services/frontend/shards/transaction.hpp"
#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {

constexpr auto fence_poll = std::chrono::milliseconds(2);

commit_mode commit_mode_of(const std::string& name) {
  return name == "one_by_one" ? commit_mode::one_by_one
         : name == "refused"  ? commit_mode::refused
                              : commit_mode::atomic;
}

}  // namespace

void worker::load_tls() {
  const auto& s = snapshot_.settings;
  if (s.tls_certificate.empty()) {
    tls_.reset();
    lacks_tls_ = false;
    return;
  }
  auto loaded = net::tls_context::server(s.tls_certificate, s.tls_private_key);
  if (loaded) {
    tls_ = std::move(*loaded);
  } else {
    // Those who are connected keep theirs; new ones get the last that worked. Where there is none,
    // clients that ask for TLS are turned away.
    log::error("tls", "{}", loaded.error().message);
  }
  lacks_tls_ = tls_ == nullptr;
}

void worker::apply(snapshot::frontend next) {
  if (next.epoch < snapshot_.epoch && snapshot_.holder != 0) return;
  snapshot_ = std::move(next);
  log::configure(snapshot_.settings.log_level, snapshot_.settings.log_format);
  statements_.set_limit(snapshot_.settings.statement_cache_bytes);
  plans_.set_limit(snapshot_.settings.plan_cache_bytes);
  loop_.look_before_sleep(std::chrono::microseconds(snapshot_.settings.busy_poll));
  load_tls();
  apply_poolers();
  apply_replicators();
  rebuild_endpoints();
}

void worker::apply_poolers() {
  std::unordered_map<std::string, std::unique_ptr<lease_line>> kept;
  for (const auto& pooler : snapshot_.poolers) {
    const auto known = lines_.find(pooler.instance);
    if (known != lines_.end() && known->second->adopt(pooler)) {
      kept.insert(lines_.extract(known));
      if (!forgotten_.contains(pooler.instance)) continue;
      for (const auto& [id, pool] : pools_) pool->pooler_heard(pooler.instance);
      for (const auto& pool : withdrawn_pools_) pool->pooler_heard(pooler.instance);
    }
  }
  auto gone = std::exchange(lines_, std::move(kept));
  forgotten_.clear();
  for (auto& [instance, line] : gone) {
    const auto is = [&name = instance](const auto& one) { return one.instance == name; };
    const bool named = std::any_of(snapshot_.poolers.begin(), snapshot_.poolers.end(), is);
    if (!named && line->lives()) {
      keep_forgotten(std::move(line));
      continue;
    }
    const bool sockets_live = lives_on(line->pooler());
    line.reset();
    pooler_down(instance, sockets_live);
  }
  for (const auto& pooler : snapshot_.poolers) {
    if (lines_.contains(pooler.instance)) continue;
    if (within_reach(pooler) && settings().lane != "relay") {
      lines_[pooler.instance] = std::make_unique<lease_channel>(*this, pooler);
    } else if (!pooler.relay.empty()) {
      lines_[pooler.instance] = make_relay_line(*this, pooler);
    } else {
      log::warn("lease", "{} is on another host and has no relay endpoint", pooler.instance);
    }
  }
}

// The router has not heard it for a while: it is stopped, or hangs. Its sockets are as good as
// ever, so what is in use stays so. The line tells when it dies, and keeps what is meant for it.
void worker::keep_forgotten(std::unique_ptr<lease_line> line) {
  const auto instance = line->pooler().instance;
  lines_[instance] = std::move(line);
  forgotten_.insert(instance);
  for (const auto& [id, pool] : pools_) pool->pooler_forgotten(instance);
  for (const auto& pool : withdrawn_pools_) pool->pooler_forgotten(instance);
}

bool worker::has_leases_of(const std::string& pooler) const {
  const auto has = [&](const auto& pool) { return pool->has_leases_of(pooler); };
  return std::any_of(pools_.begin(), pools_.end(),
                     [&](const auto& one) { return has(one.second); }) ||
         std::any_of(withdrawn_pools_.begin(), withdrawn_pools_.end(), has);
}

void worker::apply_replicators() {
  std::unordered_map<std::string, std::unique_ptr<split_line>> kept;
  for (const auto& replicator : snapshot_.replicators) {
    if (auto known = split_lines_.extract(replicator.instance);
        known && known.mapped()->replicator() == replicator) {
      kept.insert(std::move(known));
    } else {
      if (known) leaving_splits_.push_back(std::move(known.mapped()));
      kept[replicator.instance] = std::make_unique<split_line>(*this, replicator);
    }
  }
  for (auto& [instance, line] : std::exchange(split_lines_, std::move(kept))) {
    leaving_splits_.push_back(std::move(line));
  }
}

// The one with the fewest; of equals each worker begins with another.
split_line* worker::splitter() const {
  split_line* best = nullptr;
  for (const auto& [instance, line] : split_lines_) {
    if (!line->ready()) continue;
    const auto order = [&](const split_line& one) {
      return std::pair(one.copies(), (std::hash<std::string>{}(one.instance()) >> number_) & 0xff);
    };
    if (best == nullptr || order(*line) < order(*best)) best = line.get();
  }
  return best;
}

void worker::rebuild_endpoints() {
  std::set<std::uint32_t> wanted;
  for (const auto& description : snapshot_.pools) wanted.insert(description.id);
  const bool withdrawing = std::any_of(pools_.begin(), pools_.end(), [&](const auto& pool) {
    return !wanted.contains(pool.first);
  });
  if (withdrawing) {
    for (const auto& [key, each] : clients_) {
      each->leave_login_queue();
      each->leave_queue(wanted);
    }
  }
  for (auto it = pools_.begin(); it != pools_.end();) {
    if (wanted.contains(it->first)) {
      ++it;
      continue;
    }
    it->second->withdraw();
    withdrawn_pools_.push_back(std::move(it->second));
    it = pools_.erase(it);
  }
  for (const auto& description : snapshot_.pools) {
    auto& slot = pools_[description.id];
    if (slot == nullptr) {
      slot = std::make_shared<local_pool>(*this, description);
    } else {
      slot->update(description);
    }
  }
  for (auto& [key, old] : endpoints_) old->stale = true;
  endpoints_.clear();
  const auto fences_before = std::exchange(fences_, {});
  auto owners_before = std::exchange(owners_, {});
  bool new_map = false, new_hold = false;
  for (const auto& database : snapshot_.databases) {
    auto& owners = owners_[database.name] = std::move(owners_before[database.name]);
    if (!owners) owners = std::make_shared<ownership>();
    new_map = new_map || owners->map_epoch != database.map_epoch;
    owners->bucket_map = database.bucket_map;
    owners->map_epoch = database.map_epoch;
    owners->moving = database.moving;
    owners->fence = database.fence;
    owners->fenced.assign(database.fenced.empty() ? 0 : database.bucket_map.size(), false);
    for (const auto bucket : database.fenced) {
      if (bucket < owners->fenced.size()) owners->fenced[bucket] = true;
    }
    if (!database.fence.empty()) fences_.push_back(database.fence);
    new_hold = new_hold || (!database.held.empty() && owners->held != database.held);
    owners->held = database.held;
    owners->leaving = database.leaving;
    owners->guarded = database.leaving || !database.held.empty();
    owners->served = database.served;
  }
  // One that is away may come back while somebody is still connected to it: then that is his, too.
  for (auto& [name, owners] : owners_before) {
    if (owners && owners.use_count() > 1) owners_[name] = std::move(owners);
  }
  std::map<std::string_view, std::shared_ptr<const std::vector<placement::mapping_index>>> mappings;
  for (const auto& database : snapshot_.databases) {
    mappings[database.name] = std::make_shared<const std::vector<placement::mapping_index>>(
        database.mappings.begin(), database.mappings.end());
  }
  for (const auto& user : snapshot_.users) {
    const auto database = std::find_if(snapshot_.databases.begin(), snapshot_.databases.end(),
                                       [&](const auto& d) { return d.name == user.database; });
    if (database == snapshot_.databases.end()) continue;
    auto made = std::make_shared<endpoint>();
    made->user = user;
    made->database = *database;
    made->mappings = mappings[database->name];
    made->owners = owners_[database->name];
    made->sharded = !database->admin && database->shards > 1;
    made->planned = database->admin || made->sharded || database->dispatch == "always";
    made->commits = commit_mode_of(user.commits);
    made->commits_statement = commit_mode_of(user.commits_statement);
    made->mode = user.pooler_mode == "session"     ? pool_mode::session
                 : user.pooler_mode == "statement" ? pool_mode::statement
                                                   : pool_mode::transaction;
    made->pools.resize(std::max<std::size_t>(1, database->shards));
    for (const auto& pool : snapshot_.pools) {
      if (pool.user == user.name && pool.database == user.database &&
          pool.shard < made->pools.size() && pool.role != "replica") {
        made->pools[pool.shard] = pools_[pool.id].get();
        made->alive.push_back(pools_[pool.id]);
      }
    }
    for (std::uint32_t shard = 0; shard < database->shards; ++shard) {
      const auto& map = database->bucket_map;
      if (map.empty() || std::find(map.begin(), map.end(), shard) != map.end())
        made->serving.push_back(shard);
    }
    endpoints_[user.name + '\0' + user.database] = std::move(made);
  }
  learned_.clear();
  const bool new_fence = std::any_of(fences_.begin(), fences_.end(), [&](const auto& fence) {
    return std::find(fences_before.begin(), fences_before.end(), fence) == fences_before.end();
  });
  for (const auto& [key, each] : clients_) {
    if (withdrawing) each->enter_login_queue();
    if (new_map || new_fence || new_hold) each->place_again();
    if (new_fence) each->fence_raised();
    each->fence_fell();
    each->servers_changed();
    each->snapshot_changed();
  }
}

std::uint64_t worker::map_epoch(const std::string& database) const {
  const auto found = owners_.find(database);
  return found == owners_.end() ? 0 : found->second->map_epoch;
}

// Said again when what began before a fence has ended. (A fence that goes up while another is
// waited for makes that one wait longer, no more.)
void worker::acknowledge() {
  loop_.cancel(fence_timer_);
  bool left = !fences_.empty() && !finishing_.empty();
  if (!fences_.empty()) {
    for (const auto& [key, each] : clients_) left = each->before_fence() || left;
  }
  const snapshot::in_effect said{{}, left ? std::vector<std::string>{} : fences_};
  const bool news = said.drained != drained_ || acknowledged_ != epoch();
  drained_ = said.drained;
  acknowledged_ = epoch();
  if (news) {
    peer_->acknowledge(epoch(), drained_.empty() ? std::string() : snapshot::to_json(said));
  }
  if (left) fence_timer_ = loop_.after(fence_poll, [this] { acknowledge(); });
}

endpoint_ref worker::find_endpoint(const std::string& user, const std::string& database) const {
  const auto found = endpoints_.find(user + '\0' + database);
  return found == endpoints_.end() ? nullptr : found->second;
}

endpoint_ref worker::any_endpoint_of(const std::string& user) const {
  for (const auto& [key, each] : endpoints_) {
    if (each->user.name == user) return each;
  }
  return nullptr;
}

std::string worker::default_auth() const {
  return snapshot_.users.empty() ? "scram" : snapshot_.users.front().auth;
}

bool worker::knows_database(const std::string& database) const {
  return std::any_of(snapshot_.databases.begin(), snapshot_.databases.end(),
                     [&](const auto& d) { return d.name == database; });
}

}  // namespace pgsled::frontend
