// What a worker hears from poolers, and what it knows of the connections they lend.

#include "services/frontend/worker/worker.hpp"

namespace pgsled::frontend {

namespace {
constexpr std::size_t max_learned = 1024;
}  // namespace

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

}  // namespace pgsled::frontend
