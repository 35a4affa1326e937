#include "services/pooler/pools/lender.hpp"

#include "common/log/log.hpp"
#include "services/pooler/lanes/pump.hpp"
#include "services/pooler/pools/lender_state.hpp"

namespace pgsled::pooler {
namespace {

constexpr const char* component = "pooler";
constexpr const char* no_descriptors =
    "the pooler is out of file descriptors; raise its limit of open files";
constexpr auto cancel_limit = std::chrono::seconds(5);
constexpr auto end_limit = std::chrono::seconds(1);  // for a server to close after Terminate
constexpr std::size_t most_early_pools = 4096;
constexpr auto complain_every = std::chrono::seconds(5);
constexpr auto closing_delays = std::to_array<std::chrono::milliseconds>(
    {std::chrono::milliseconds(5), std::chrono::milliseconds(50), std::chrono::milliseconds(250),
     std::chrono::milliseconds(1000), std::chrono::milliseconds(3000)});

}  // namespace

lender::lender(net::reactor& r, probe& p, std::string instance, std::uint64_t boot,
               std::string server_sockets)
    : reactor_(r),
      probe_(p),
      instance_(std::move(instance)),
      boot_(boot),
      graveyard_(r),
      resolver_(r, std::move(server_sockets)) {}

lender::~lender() {
  reactor_.cancel(settle_timer_);
  for (auto& [id, entry] : pools_) reactor_.cancel(entry->timer);
  for (auto& [id, c] : connections_) reactor_.cancel(c->closing_timer);
}

lender::connection* lender::find(lease_id id) {
  const auto at = connections_.find(id);
  return at == connections_.end() ? nullptr : at->second.get();
}

void lender::run(pool_entry& entry) {
  if (entry.running) return;  // the loop below, further up the stack, goes on with it
  entry.running = true;
  for (auto actions = entry.machine->take(); !actions.empty(); actions = entry.machine->take()) {
    for (auto& one : actions) std::visit([&](auto& what) { carry_out(entry, what); }, one);
  }
  entry.running = false;
  count(entry);
  arm(entry);
  // While leases in long transactions are waited for, only what has changed matters.
  if (settled_ && (!settling_long_ || over(entry) != entry.told_over)) maybe_settled();
  if (entry.machine->draining() && entry.machine->empty()) {
    reactor_.defer([this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired()) remove_drained();
    });
  }
}

void lender::arm(pool_entry& entry) {
  const auto next = entry.machine->deadline();
  if (next == entry.armed) return;
  reactor_.cancel(entry.timer);
  entry.armed = next;
  if (!next) return;
  entry.timer = reactor_.at(*next, [this, &entry] {
    entry.armed.reset();
    entry.machine->tick(net::clock::now());
    run(entry);
  });
}

void lender::count(pool_entry& entry) {
  const auto move = [](metrics::cell& cell, auto& old, auto now) {
    cell.add(now - old);  // may be negative: unsigned arithmetic wraps
    old = now;
  };
  auto& machine = *entry.machine;
  for (std::size_t i = 0; i < phases; ++i) {
    const auto now = machine.in_phase(static_cast<connection_phase>(i));
    probe_.connections[i].add(now);
    probe_.connections[i].subtract(entry.in_phase[i]);
    entry.in_phase[i] = now;
  }
  move(probe_.waiting, entry.waiting, machine.waiting());
  move(probe_.orphans, entry.orphans, std::uint64_t{machine.orphans()});
  const auto& c = machine.counters();
  move(probe_.lent, entry.told.lent, c.lent);
  move(probe_.recalls, entry.told.recalls, c.recalls);
  move(probe_.broken, entry.told.broken, c.broken);
  move(probe_.cleaned, entry.told.dirty, c.dirty);
  move(probe_.opened, entry.told.connects, c.connects);
  move(probe_.open_failures, entry.told.connect_failures, c.connect_failures);
}

// --- what the pools decide ----------------------------------------------------------------------

void lender::carry_out(pool_entry& entry, open_connection& what) {
  auto* known = find(what.id);
  if (known == nullptr) {
    auto fresh = std::make_unique<connection>();
    known = fresh.get();
    connections_[what.id] = std::move(fresh);
  }
  known->id = what.id;
  known->pool = &entry;
  known->target = target_of(entry.settings);
  known->started = net::clock::now();
  if (known->target.tls_verify != "disabled" && !known->target.tls) {
    return connected(what.id, failure("F0000", tls_error_));
  }
  const auto& s = entry.settings;
  auth::server_identity identity{s.server_user, s.server_password, s.server_database, s.startup};
  graveyard_.bury(std::move(known->opening));
  known->opening = std::make_unique<server_opening>(
      reactor_, known->target, std::move(identity), milliseconds(settings_.connect_timeout),
      [this, id = what.id](result<opened> how) { connected(id, std::move(how)); });
  known->opening->start(resolver_);
}

void lender::connected(lease_id id, result<opened> how) {
  auto* c = find(id);
  if (c == nullptr) return;
  auto& entry = *c->pool;
  graveyard_.bury(std::move(c->opening));
  const auto now = net::clock::now();
  if (!how) {
    if (now - entry.complained > complain_every) {
      entry.complained = now;
      log::warn(component, "pool {}: {}", entry.settings.id, how.error().message);
    }
    auto error = std::move(how.error());
    entry.machine->connect_failed(id, error, now);
    const auto all = entry.machine->connections();
    const bool stays =
        std::any_of(all.begin(), all.end(), [&](const auto& v) { return v.id == id; });
    if (!stays) connections_.erase(id);  // else it is tried again
    return run(entry);
  }
  probe_.connect_seconds.observe_us(static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now - c->started).count()));
  c->live = std::make_unique<server_connection>(
      reactor_, std::move(*how),
      server_connection::callbacks{[this, id](const std::string& why) { lost(id, why); },
                                [this, id](bool good) { ran(id, good); }});
  c->live->park();
  entry.machine->connected(id, now);
  run(entry);
}

void lender::lost(lease_id id, const std::string& why) {
  auto* c = find(id);
  if (c == nullptr) return;
  log::info(component, "pool {}: idle server connection {} lost: {}", c->pool->settings.id, id,
            why);
  c->pool->machine->lost(id, net::clock::now());
  run(*c->pool);
}

void lender::carry_out(pool_entry&, check_connection& what) {
  if (auto* c = find(what.id); c != nullptr && c->live) {
    c->live->run(";", milliseconds(settings_.healthcheck_timeout));
  }
}

void lender::carry_out(pool_entry&, clean_connection& what) {
  if (auto* c = find(what.id); c != nullptr && c->live) {
    c->live->run("DISCARD ALL", milliseconds(settings_.rollback_timeout));
  }
}

void lender::ran(lease_id id, bool good) {
  auto* c = find(id);
  if (c == nullptr) return;
  if (!good) probe_.checks_failed.add();
  c->pool->machine->checked(id, good, net::clock::now());
  run(*c->pool);
}

void lender::carry_out(pool_entry& entry, lend_connection& what) {
  auto* c = find(what.id);
  const auto to = holders_.find(what.holder);
  if (c == nullptr || !c->live || to == holders_.end()) return;
  auto& link = *to->second.link;
  c->live->unpark();
  if (link.relays()) {
    graveyard_.bury(std::exchange(c->lane, link.relay(what.id)));
    c->relayed = true;
  } else if (c->live->encrypted() || settings_.lane == "pumped") {
    if (!c->lane || c->relayed) {
      graveyard_.bury(std::exchange(c->lane, std::make_unique<pump>(reactor_)));
    }
    c->relayed = false;
  } else {
    graveyard_.bury(std::move(c->lane));
    c->relayed = false;
  }
  if (c->lane && !c->relayed && c->lane->descriptor() < 0) {
    graveyard_.bury(std::move(c->lane));
    log::error(component, "{}", no_descriptors);
    give_to(what.holder, lease::pool_failed{entry.settings.id,
                                            {"53000", no_descriptors, {}, {}}});
    entry.machine->give_back(what.holder, what.id, what.generation, lease::condition::broken,
                             net::clock::now());
    return;
  }
  lease::grant grant{entry.settings.id, what.id, what.generation, c->live->pid(),
                     c->live->parameters(), c->live->state()};
  c->live->state().unread.clear();
  const int fd = c->lane ? c->lane->descriptor() : c->live->transport().fd.get();
  auto* lane = c->lane.get();
  give_to(what.holder, std::move(grant), fd);
  // give_to may have lost the holder, and with it this lease.
  if (lane != nullptr && entry.machine->is_lent(what.id, what.generation, what.holder)) {
    lane->start(c->live->transport(), what.generation);
  }
}

void lender::carry_out(pool_entry& entry, recall_leases& what) {
  give_to(what.holder, lease::recall{entry.settings.id, what.outstanding});
}

void lender::carry_out(pool_entry&, retire_lease& what) {
  give_to(what.holder, lease::retire{what.id});
}

void lender::carry_out(pool_entry& entry, tell_failure& what) {
  give_to(what.holder, lease::pool_failed{entry.settings.id, std::move(what.error)});
}

void lender::carry_out(pool_entry&, drop_holder& what) {
  lose(what.holder, "no answer to a recall in time");
}

void lender::carry_out(pool_entry& entry, close_connection& what) {
  auto* c = find(what.id);
  if (c == nullptr) {
    entry.machine->closed(what.id, net::clock::now());
    return;
  }
  graveyard_.bury(std::move(c->opening));
  if (!c->live) return finish_close(*c);
  c->live->unpark();
  if (c->lane) c->lane->stop();
  const bool may_run = what.may_run && !c->live->transport().ended();
  if (c->cancel || may_run) {
    c->live->shut_down();
    c->close_after_cancel = true;
    if (!c->cancel) start_cancel(*c);
    return;
  }
  if (what.may_run) c->live->shut_down();
  c->live->terminate();
  await_end(*c, net::clock::now() + end_limit, milliseconds(1));
}

// A backend that is still on its way out counts for PostgreSQL, so it counts here.
void lender::await_end(connection& c, time_point until, milliseconds pause) {
  if (!c.live->server_still_there() || net::clock::now() >= until) return finish_close(c);
  c.closing_timer = reactor_.after(pause, [this, id = c.id, until, pause] {
    auto* late = find(id);
    if (late == nullptr) return;
    late->closing_timer = 0;
    await_end(*late, until, std::min(pause * 2, milliseconds(16)));
  });
}

void lender::finish_close(connection& c) {
  reactor_.cancel(c.closing_timer);
  auto& entry = *c.pool;
  const auto id = c.id;
  const auto at = connections_.find(id);
  graveyard_.bury(std::move(at->second));
  connections_.erase(at);
  expelled_.erase(id);
  entry.machine->closed(id, net::clock::now());
  run(entry);
}

void lender::start_cancel(connection& c) {
  probe_.cancels.add();
  c.cancel = std::make_unique<server_cancel>(reactor_, c.target, c.live->pid(), c.live->secret(),
                                             cancel_limit,
                                             [this, id = c.id](bool sure) { cancelled(id, sure); });
  c.cancel->start(c.live->peer());
}

void lender::cancelled(lease_id id, bool sure) {
  auto* c = find(id);
  if (c == nullptr) return;
  graveyard_.bury(std::move(c->cancel));
  if (!sure) {
    // Before the holder hears that the cancel is over, and lends the connection to its next client.
    c->pool->machine->retire(id);
    run(*c->pool);
    c = find(id);
    if (c == nullptr) return;
  }
  if (c->cancel_for != 0) {
    const auto to = std::exchange(c->cancel_for, 0);
    give_to(to, lease::cancel_done{id, c->cancel_generation});
    c = find(id);
    if (c == nullptr || c->cancel) return;
  }
  if (c->close_after_cancel) close_when_gone(*c);
}

// A cancel that reaches the server before it has read the statement is without effect, and nothing
// else would end that statement: it is sent again as long as the server keeps its end open. Until
// then the connection counts against the budget, as it does for the server.
void lender::close_when_gone(connection& c) {
  if (c.live->server_still_there() && c.closing_looks < closing_delays.size()) {
    c.closing_timer = reactor_.after(closing_delays[c.closing_looks++], [this, id = c.id] {
      auto* late = find(id);
      if (late == nullptr) return;
      late->closing_timer = 0;
      // The first look only gives the server the time to go.
      if (late->closing_looks > 1 && late->live->server_still_there()) return start_cancel(*late);
      close_when_gone(*late);
    });
    return;
  }
  c.live->terminate();
  finish_close(c);
}

// --- holders ------------------------------------------------------------------------------------

holder_id lender::attach(holder_link& link) {
  const auto id = ++last_holder_;
  holders_[id].link = &link;
  probe_.holders.set(holders_.size());
  return id;
}

void lender::give_to(holder_id who, const lease::message& what, int fd) {
  const auto at = holders_.find(who);
  if (at == holders_.end()) return;
  if (!at->second.link->send(what, fd)) lose(who, "its channel is full or closed");
}

void lender::lose(holder_id who, const std::string& why) {
  const auto at = holders_.find(who);
  if (at == holders_.end()) return;
  log::warn(component, "holder {} dropped: {}", at->second.name, why);
  probe_.holders_lost.add();
  auto* link = at->second.link;
  forget(who);
  link->end();
}

void lender::refuse(holder_id who, const std::string& why) {
  probe_.messages_bad.add();
  lose(who, why);
}

void lender::gone(holder_id who) {
  const auto at = holders_.find(who);
  if (at == holders_.end()) return;
  log::info(component, "holder {} is gone", at->second.name);
  forget(who);
}

void lender::forget(holder_id who) {
  holders_.erase(who);
  probe_.holders.set(holders_.size());
  for (auto& [id, entry] : pools_) {
    entry->machine->holder_gone(who, net::clock::now());
    run(*entry);
  }
}

void lender::receive(holder_id who, lease::message&& what) {
  const auto at = holders_.find(who);
  if (at == holders_.end()) return;
  if (!at->second.greeted && !std::holds_alternative<lease::hello>(what)) {
    return refuse(who, "it did not say hello");
  }
  std::visit([&](auto& it) { hear(who, it); }, what);
}

void lender::hear(holder_id who, lease::hello& what) {
  auto& h = holders_[who];
  if (what.orphans.size() > most_early_pools) return refuse(who, "too many orphans");
  if (!allowed(what.holder)) {
    return lose(who, "the router does not hear it, and rows are being moved");
  }
  h.name = what.holder;
  if (!std::exchange(h.greeted, true)) {
    log::info(component, "holder {} is here", h.name);
    for (const auto& [pool, count] : what.orphans) {
      h.orphans[pool] = count;
      if (pools_.contains(pool)) pools_[pool]->machine->set_orphans(who, count, net::clock::now());
    }
    for (auto& [id, entry] : pools_) run(*entry);  // may lose this very holder
  }
  give_to(who, lease::welcome{instance_, boot_});
}

void lender::hear(holder_id who, lease::demand& what) {
  const auto at = pools_.find(what.pool);
  if (at == pools_.end()) {
    // A pool that is not known here is either new, and the holder has the newer snapshot; or gone,
    // and the holder will hear of that and ask elsewhere. Were it kept, a pool that comes back
    // would lend to somebody who does not wait any more.
    auto& early = holders_[who].early_demand;
    if (what.epoch < epoch_) {
      probe_.demands_old.add();
      early.erase(what.pool);
      return;
    }
    if (early.size() >= most_early_pools && !early.contains(what.pool)) {
      return refuse(who, "too many pools");
    }
    early[what.pool] = {what.waiting, what.epoch};
    return;
  }
  // Its clients may be on their way to a shard that has not got their rows any more.
  const bool old = what.map_epoch < at->second->settings.map_epoch;
  if (old) probe_.demands_old.add();
  at->second->machine->demand(who, old ? 0 : what.waiting, net::clock::now(), what.oldest_ms);
  run(*at->second);
}

void lender::hear(holder_id who, lease::give_back& what) {
  auto* c = find(what.lease);
  // Of an earlier generation, or never this holder's.
  if (c == nullptr || !c->pool->machine->is_lent(what.lease, what.generation, who)) return;
  auto how = what.condition;
  if (c->lane) {
    if (!c->lane->quiet()) how = lease::condition::broken;
    c->lane->stop();
    if (c->relayed) graveyard_.bury(std::move(c->lane));
  }
  // A cancel that is still under way could hit the next holder's query.
  if (c->cancel || !what.state.unread.empty()) how = lease::condition::broken;
  if (how == lease::condition::clean && what.state.statements.size() >= lease::max_statements) {
    how = lease::condition::dirty;
  }
  c->live->state() = std::move(what.state);
  if (!what.parameters.empty()) c->live->set_parameters(std::move(what.parameters));
  if (how != lease::condition::broken) c->live->park();
  auto& entry = *c->pool;
  entry.machine->give_back(who, what.lease, what.generation, how, net::clock::now());
  run(entry);
}

void lender::hear(holder_id who, lease::recall_ack& what) {
  const auto at = pools_.find(what.pool);
  if (at == pools_.end()) return;
  at->second->machine->recall_ack(who, net::clock::now());
  run(*at->second);
}

void lender::hear(holder_id who, lease::cancel& what) {
  auto* c = find(what.lease);
  if (c == nullptr || !c->pool->machine->is_lent(what.lease, what.generation, who)) {
    return probe_.cancels_late.add();
  }
  if (c->cancel) return;  // under way; its cancel_done answers both
  c->cancel_for = who;
  c->cancel_generation = what.generation;
  start_cancel(*c);
}

void lender::hear(holder_id who, lease::orphans_left& what) {
  auto& orphans = holders_[who].orphans;
  if (orphans.size() >= most_early_pools && !orphans.contains(what.pool)) {
    return refuse(who, "too many orphans");
  }
  if (what.count == 0) {
    orphans.erase(what.pool);
  } else {
    orphans[what.pool] = what.count;
  }
  const auto at = pools_.find(what.pool);
  if (at == pools_.end()) return;
  at->second->machine->set_orphans(who, what.count, net::clock::now());
  run(*at->second);
}

template <class Other>
void lender::hear(holder_id who, Other&) {
  refuse(who, "it spoke as a pooler");
}

}  // namespace pgsled::pooler
