#include "services/frontend/worker.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <set>

#include "common/log/log.hpp"
#include "services/frontend/client.hpp"
#include "services/frontend/gather.hpp"
#include "services/frontend/relay_line.hpp"
#include "services/frontend/shard_transaction.hpp"

namespace pgsled::frontend {

namespace {
constexpr auto tick_interval = std::chrono::milliseconds(20);
constexpr std::uint32_t max_slots = 1u << 20;  // bits of the slot in a cancel key
constexpr std::size_t max_learned = 1024;
constexpr int accepts_per_turn = 64;
constexpr auto fence_poll = std::chrono::milliseconds(2);

commit_mode commit_mode_of(const std::string& name) {
  return name == "one_by_one" ? commit_mode::one_by_one
         : name == "refused"  ? commit_mode::refused
                              : commit_mode::atomic;
}
}  // namespace

class worker::listener final : public net::watcher {
 public:
  listener(worker& w, net::unique_fd fd, bool local)
      : worker_(w), fd_(std::move(fd)), local_(local) {
    worker_.loop().add(fd_.get(), EPOLLIN, this);
  }
  ~listener() { worker_.loop().remove(fd_.get()); }
  void on_events(std::uint32_t) override {
    for (int i = 0; i < accepts_per_turn; ++i) {
      net::unique_fd accepted(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!accepted) {
        if (errno == EMFILE || errno == ENFILE)
          log::error("listen", "out of file descriptors; raise the limit of open files");
        break;
      }
      if (local_) {
        worker_.accepted_local(std::move(accepted));
      } else {
        worker_.accepted(std::move(accepted), false);
      }
    }
    worker_.run_scheduled();
  }

 private:
  worker& worker_;
  net::unique_fd fd_;
  bool local_;
};

worker::worker(process_shared& shared, unsigned number, snapshot::frontend first)
    : shared_(shared),
      number_(number),
      instance_(shared.options.instance + "." + std::to_string(number)),
      snapshot_(std::move(first)),
      read_buffer_(new std::uint8_t[read_buffer_size]),
      message_buffer_(new std::uint8_t[lease::max_message_bytes]) {
  // Until its own welcome a worker has no number for cancel keys and lets nobody in.
  snapshot_.holder = 0;
  series_ = probe_.publish(metrics::process_registry(), std::to_string(number));
  bus::peer_options options;
  options.endpoint = shared.options.router;
  options.instance = instance_;
  options.curve = shared.curve;
  bus::peer::callbacks callbacks;
  callbacks.hello = [this] { return hello(); };
  callbacks.snapshot = [this](byte_span json, std::uint64_t epoch) {
    auto next = snapshot::from_json<snapshot::frontend>(as_text(json));
    if (!next) {
      log::error("config", "the router's snapshot cannot be read: {}", next.error().message);
      return;
    }
    next->epoch = epoch;
    apply(std::move(*next));
    acknowledge();
    run_scheduled();
  };
  callbacks.message = [this](const bus::envelope& message) {
    from_router(message);
    run_scheduled();
  };
  callbacks.link = [](bool up) {
    log::info("router", "{}", up ? "router is there" : "router is not heard");
  };
  peer_ = std::make_unique<bus::peer>(loop_, shared.bus, options, std::move(callbacks));
}

worker::~worker() {
  finishing_.clear();
  leaving_splits_.clear();
  split_lines_.clear();
  lines_.clear();
  clients_.clear();
}

result<bool> worker::listen() {
  auto bound = net::listen_tcp(snapshot_.settings.host, snapshot_.settings.port, true, 4096);
  if (!bound) return tl::unexpected<pg_error>(bound.error());
  listeners_.push_back(std::make_unique<listener>(*this, std::move(*bound), false));
  if (number_ == 0 && !snapshot_.settings.unix_socket_dir.empty()) return listen_locally();
  return true;
}

// The Unix socket has room for one frontend; another of this machine takes it over when that has
// ended. False: not yet.
result<bool> worker::listen_locally() {
  const auto& s = snapshot_.settings;
  const auto path = s.unix_socket_dir + "/.s.PGSQL." + std::to_string(s.port);
  auto local = net::listen_unix(path, SOCK_STREAM, 0777);
  wants_local_ = !local && local.error().sqlstate == "55006";
  if (wants_local_) return false;
  if (!local) return tl::unexpected<pg_error>(local.error());
  listeners_.push_back(std::make_unique<listener>(*this, std::move(*local), true));
  return true;
}

void worker::run() {
  load_tls();
  peer_->start();
  std::function<void()> again = [this, &again] {
    tick();
    run_scheduled();
    loop_.after(tick_interval, again);
  };
  loop_.after(tick_interval, again);
  net::reactor::wake_patiently();
  loop_.run();
}

void worker::drain() {
  loop_.post([this] {
    if (draining_) return;
    draining_ = true;
    drain_deadline_ = loop_.now() + std::chrono::milliseconds(
                                        std::max<std::int64_t>(0, settings().shutdown_timeout));
    listeners_.clear();
    peer_->tell(bus::kind::bye, {});
    for (const auto& [key, each] : clients_) each->drain();
    run_scheduled();
    check_drained();
  });
}

void worker::check_drained() {
  if (!draining_) return;
  if (!clients_.empty() && loop_.now() < drain_deadline_) return;
  const pg_error down{"57P01", "terminating connection due to administrator command", {}, {}};
  for (const auto& [key, each] : clients_) each->end(down);
  run_scheduled();
  for (const auto& [id, pool] : pools_) pool->withdraw();
  run_scheduled();
  // One more turn, so that what was just written to poolers leaves.
  loop_.after(std::chrono::milliseconds(50), [this] { loop_.stop(); });
  drain_deadline_ = net::time_point::max();
}

void worker::schedule(std::function<void()> task) { scheduled_.push_back(std::move(task)); }

void worker::run_scheduled() {
  if (running_scheduled_) return;
  running_scheduled_ = true;
  // Tasks may schedule more.
  for (std::size_t i = 0; i < scheduled_.size(); ++i) {
    auto task = std::move(scheduled_[i]);
    task();
  }
  scheduled_.clear();
  running_scheduled_ = false;
}

void worker::carry_on(std::unique_ptr<shard_transaction> commit) {
  finishing_.push_back(std::move(commit));
}

void worker::tick() {
  const auto now = loop_.now();
  // First, while nothing that is scheduled names a line.
  std::erase_if(forgotten_, [this](const auto& pooler) {
    return !has_leases_of(pooler) && lines_.erase(pooler) > 0;
  });
  std::erase_if(leaving_splits_, [](const auto& line) { return line->copies() == 0; });
  gate_.tick(now);
  if (!finishing_.empty()) std::erase_if(finishing_, [](const auto& one) { return one->over(); });
  for (const auto& [id, pool] : pools_) pool->tick(now);
  std::erase_if(withdrawn_pools_, [](const auto& pool) { return pool->leases() == 0; });
  // Time-outs of clients are seconds: a tenth of them a tick is often enough.
  static constexpr std::size_t share = 10;
  std::size_t index = 0;
  tick_number_ = (tick_number_ + 1) % share;
  for (const auto& [key, each] : clients_) {
    if (index++ % share == tick_number_ && each->now_in() != client::state::closed) {
      each->check_timeouts(now);
      each->look_at_fence();
      each->snapshot_changed();
    }
  }
  if (wants_local_ && !draining_ && now >= next_local_try_) {
    next_local_try_ = now + std::chrono::seconds(1);
    const auto listening = listen_locally();
    if (!listening) log::error("listen", "{}", listening.error().message);
  }
  check_drained();
}

// --- configuration ---------------------------------------------------------------------------

void worker::load_tls() {
  const auto& s = snapshot_.settings;
  if (s.tls_certificate.empty()) {
    tls_.reset();
    return;
  }
  auto loaded = net::tls_context::server(s.tls_certificate, s.tls_private_key);
  if (loaded) {
    tls_ = std::move(*loaded);
  } else {
    // Those who are connected keep theirs; new ones get the last that worked.
    log::error("tls", "{}", loaded.error().message);
  }
}

void worker::apply(snapshot::frontend next) {
  if (next.epoch < snapshot_.epoch && snapshot_.holder != 0) return;
  snapshot_ = std::move(next);
  log::configure(snapshot_.settings.log_level, snapshot_.settings.log_format);
  statements_.set_limit(snapshot_.settings.statement_cache_bytes);
  plans_.set_limit(snapshot_.settings.plan_cache_bytes);
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
    for (const auto& [key, each] : clients_) each->leave_login_queue();
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

// --- clients -----------------------------------------------------------------------------------

void worker::accepted(net::unique_fd fd, bool local) {
  const auto& s = snapshot_.settings;
  net::apply(fd.get(), net::tcp_options{s.tcp_keepalive, s.tcp_time_s, s.tcp_interval_s,
                                        s.tcp_retries, s.tcp_user_timeout_ms});
  probe_.clients_accepted.add();
  auto made = std::make_unique<client>(*this, std::move(fd), local);
  auto* fresh = made.get();
  clients_[fresh] = std::move(made);
  probe_.clients.add();
  const auto total = shared_.clients.fetch_add(1) + 1;
  if (s.max_client_conn > 0 && total > static_cast<std::int64_t>(s.max_client_conn)) {
    probe_.clients_refused.add();
    fresh->refuse_at_startup(
        pg_error{"53300",
                 "sorry, too many clients already",
                 "max_client_conn is " + std::to_string(s.max_client_conn) + ".",
                 {}});
  }
}

// A Unix socket cannot be listened on by each worker, as the TCP port is: the one that does deals
// its clients out.
void worker::accepted_local(net::unique_fd fd) {
  auto* to = shared_.workers[next_local_++ % shared_.workers.size()];
  if (to == this) return accepted(std::move(fd), true);
  to->loop_.post([to, kept = std::make_shared<net::unique_fd>(std::move(fd))] {
    if (to->draining_) return;  // closed, as what nobody has accepted yet
    to->accepted(std::move(*kept), true);
    to->run_scheduled();
  });
}

std::uint32_t worker::add_slot(client* added) {
  if (!free_slots_.empty()) {
    const auto slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = added;
    return slot;
  }
  if (slots_.size() >= max_slots) return ~0u;
  slots_.push_back(added);
  return static_cast<std::uint32_t>(slots_.size() - 1);
}

void worker::remove_slot(std::uint32_t slot) {
  if (slot >= slots_.size()) return;
  slots_[slot] = nullptr;
  free_slots_.push_back(slot);
}

client* worker::client_of(std::uint32_t pid) const {
  const auto slot = pid & (max_slots - 1);
  if (pid >> 20 != snapshot_.holder || slot >= slots_.size()) return nullptr;
  return slots_[slot];
}

void worker::cancel(std::uint32_t pid, std::string_view secret, bool forwarded) {
  if (pid >> 20 == snapshot_.holder) {
    auto* named = client_of(pid);
    if (named != nullptr && named->matches_secret(secret)) named->cancel();
    return;
  }
  if (forwarded) return;
  std::string payload(4, '\0');
  store_le(payload.data(), pid);
  payload.append(secret);
  peer_->tell(bus::kind::cancel, as_bytes(payload));
}

void worker::client_gone(client* gone) {
  remove_slot(gone->slot());
  probe_.clients.subtract();
  shared_.clients.fetch_sub(1);
  // Whoever is on the stack may still use it.
  schedule([this, gone] {
    clients_.erase(gone);
    check_drained();
  });
}

// --- leases --------------------------------------------------------------------------------------

void worker::tell_pooler(const std::string& pooler, lease::message message) {
  if (const auto line = lines_.find(pooler); line != lines_.end()) line->second->tell(message);
}

lease::hello worker::greeting(const std::string& pooler) const {
  lease::hello hello;
  hello.holder = instance_;
  hello.epoch = snapshot_.epoch;
  hello.network = app::host_identity();
  for (const auto& [id, pool] : pools_) {
    if (const auto count = pool->orphans_of(pooler); count > 0)
      hello.orphans.emplace_back(id, count);
  }
  return hello;
}

void worker::pooler_up() {
  // The line may be being made: it is in lines_ only after its constructor.
  schedule([this] {
    for (const auto& [id, pool] : pools_) pool->channel_up();
  });
}

void worker::pooler_down(const std::string& pooler, bool sockets_live) {
  for (const auto& [id, pool] : pools_) pool->pooler_gone(pooler, sockets_live);
  for (const auto& pool : withdrawn_pools_) pool->pooler_gone(pooler, sockets_live);
}

void worker::from_pooler(const std::string& pooler, lease::message&& message,
                         std::unique_ptr<server_stream> stream) {
  const auto pool_of = [&](lease::pool_id id) -> local_pool* {
    const auto found = pools_.find(id);
    return found == pools_.end() ? nullptr : found->second.get();
  };
  const auto lent = [&](lease::lease_id id) -> server* {
    for (const auto& [key, pool] : pools_) {
      if (auto* found = pool->find(pooler, id)) return found;
    }
    for (const auto& pool : withdrawn_pools_) {
      if (auto* found = pool->find(pooler, id)) return found;
    }
    return nullptr;
  };
  const bool forgotten = forgotten_.contains(pooler);
  if (auto* grant = std::get_if<lease::grant>(&message)) {
    auto* pool = pool_of(grant->pool);
    if (pool == nullptr || !stream || forgotten) {
      tell_pooler(pooler,
                  lease::give_back{grant->lease, grant->generation, lease::condition::broken, {}});
      return;
    }
    pool->add(pooler, std::move(*grant), std::move(stream));
  } else if (const auto* recall = std::get_if<lease::recall>(&message)) {
    if (auto* pool = pool_of(recall->pool)) {
      pool->recall(pooler, recall->count);
    } else {
      tell_pooler(pooler, lease::recall_ack{recall->pool});
    }
  } else if (const auto* retire = std::get_if<lease::retire>(&message)) {
    if (auto* s = lent(retire->lease)) s->pool().retire(*s);
  } else if (const auto* done = std::get_if<lease::cancel_done>(&message)) {
    if (auto* s = lent(done->lease); s != nullptr && s->generation() == done->generation)
      s->pool().cancel_done(*s);
  } else if (const auto* failed = std::get_if<lease::pool_failed>(&message)) {
    if (auto* pool = pool_of(failed->pool); pool != nullptr && !forgotten)
      pool->failed(failed->error);
  }
}

pg_error worker::why_no_lease(const local_pool& pool) const {
  const auto& d = pool.description();
  const auto seconds = std::to_string(settings().checkout_timeout) + " ms (checkout_timeout)";
  if (!peer_->connected() && d.targets.empty()) {
    return {
        "57P03", "the router is not there yet; waited " + seconds, "Try again in a moment.", {}};
  }
  if (d.targets.empty()) {
    return {"57P03", "no pooler serves database \"" + d.database + "\"; waited " + seconds,
            "Start pgsled-pooler.", {}};
  }
  return {"53300",
          "no server connection of user \"" + d.user + "\" to database \"" + d.database + "\" at " +
              pool.where() + " became free within " + seconds,
          "Raise default_pool_size or pool_size, or make transactions shorter.",
          {}};
}

session::pair_set_ref worker::known_parameters(const local_pool* pool,
                                               const session::pair_set_ref& settings) const {
  for (const auto& entry : learned_) {
    if (entry.pool == pool && entry.settings == settings) return entry.parameters;
  }
  return nullptr;
}

void worker::learn_parameters(const local_pool* pool, const session::pair_set_ref& settings,
                              session::pair_set_ref parameters) {
  if (known_parameters(pool, settings)) return;
  if (learned_.size() >= max_learned) learned_.clear();
  learned_.push_back({pool, settings, std::move(parameters)});
}

// --- the router
// -----------------------------------------------------------------------------------

std::string worker::hello() const {
  snapshot::hello hello;
  hello.service = "frontend";
  hello.instance = instance_;
  hello.version = PGSLED_VERSION;
  hello.pid = ::getpid();
  hello.boot = shared_.boot;
  hello.host = app::host_identity();
  hello.http = shared_.http;
  hello.holder = snapshot_.holder;
  hello.relay_key = shared_.curve.public_key;
  return snapshot::to_json(hello);
}

// {"command":"deadlock","client":pid of a cancel key,"began":of its transaction}
void worker::end_deadlock(std::string_view json) {
  boost::json::error_code ec;
  const auto parsed = boost::json::parse(json, ec);
  if (ec || !parsed.is_object()) return;
  const auto* who = parsed.as_object().if_contains("client");
  const auto* began = parsed.as_object().if_contains("began");
  if (who == nullptr || began == nullptr || !who->is_int64() || !began->is_int64()) return;
  if (auto* named = client_of(static_cast<std::uint32_t>(who->as_int64()))) {
    named->end_deadlock(static_cast<std::uint32_t>(began->as_int64()));
  }
  run_scheduled();
}

void worker::from_router(const bus::envelope& message) {
  switch (message.header.kind) {
    case bus::kind::cancel:
      if (message.payload.size() >= 8) {
        cancel(load_le<std::uint32_t>(message.payload.data()), as_text(message.payload.subspan(4)),
               true);
      }
      break;
    case bus::kind::gather: {
      const auto answer = answer_gather(*this, as_text(message.payload));
      peer_->tell(bus::kind::gather_answer, as_bytes(answer), message.header.request);
      break;
    }
    case bus::kind::command:
      if (as_text(message.payload).find("\"deadlock\"") != std::string_view::npos) {
        end_deadlock(as_text(message.payload));
        break;
      }
      if (as_text(message.payload).find("\"shutdown\"") != std::string_view::npos &&
          shared_.on_shutdown_command) {
        shared_.on_shutdown_command();
      }
      break;
    default:
      break;
  }
}

}  // namespace pgsled::frontend
