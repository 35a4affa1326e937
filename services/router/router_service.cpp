#include "services/router/router_service.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <random>
#include <set>

#include "common/bus/error_payload.hpp"
#include "common/bus/hub.hpp"
#include "common/log/log.hpp"
#include "common/snapshot/move.hpp"
#include "services/router/admin/commands.hpp"
#include "services/router/admin/desk.hpp"
#include "services/router/admin/gatherer.hpp"
#include "services/router/commit/service.hpp"
#include "services/router/control/cancels.hpp"
#include "services/router/control/configuration.hpp"
#include "services/router/control/control.hpp"
#include "services/router/metrics/router_metrics.hpp"
#include "services/router/metrics/suite_http.hpp"
#include "services/router/login_seed.hpp"
#include "services/router/move_desk.hpp"
#include "services/router/move_requests.hpp"
#include "services/router/names/service.hpp"
#include "services/router/plan_desk.hpp"
#include "services/router/reload.hpp"
#include "services/router/shards/service.hpp"

namespace pgsled::router {

namespace {

using bus::kind;
constexpr std::chrono::milliseconds tick_every{100};
constexpr std::chrono::milliseconds reload_bound{10'000};
constexpr std::chrono::milliseconds told_bound{3000};   // of DDL; who hangs is not waited for longer
constexpr std::chrono::milliseconds shutdown_bound{8'000};
constexpr std::size_t max_ack_waiters = 64;

std::uint64_t milliseconds_since_1970() {
  using namespace std::chrono;
  return static_cast<std::uint64_t>(
      duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count());
}
std::uint64_t random_boot() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random() | 1u;
}

}  // namespace

struct router_service::state {
  app::process& process;
  net::reactor loop;
  const std::uint64_t boot = random_boot();
  const std::int64_t began = steady_ms();
  control truth;
  gatherer questions;
  plan_desk plans;
  shard_service shards;
  move_desk moves;
  names_service names;
  commit_service commits;
  admin_desk admin;
  move_requests moving;
  router_metrics series;
  std::string key_problem;
  std::vector<std::string> client_keys;
  bus::hub hub;
  suite_http http;
  bool refresh_planned = false, stopping = false;
  std::string bound;
  std::atomic<bool> listens{false};
  config::configuration first_file;
  std::set<std::string> maps_awaited;   // of databases whose names have been read for a fence
  std::int64_t stop_at = 0;

  struct ack_waiter {
    std::int64_t until = 0;
    std::function<void(std::vector<std::string> behind)> done;
  };
  std::list<ack_waiter> ack_waiters;   // reloads and definitions

  state(app::process& p, config::configuration config)
      : process(p),
        truth(milliseconds_since_1970(), steady_ms()),
        questions([this](const auto& to, std::uint64_t request, const std::string& json) {
          return send(to, kind::gather, as_bytes(json), request);
        }),
        plans(plan_callbacks()),
        shards(loop, truth, plans, [this] { plan_refresh(); }),
        moves(move_callbacks()),
        names(loop, truth, names_callbacks()),
        commits(loop, truth, [this](const commit::mark& victim) { end_deadlock(victim); }),
        admin(truth, questions, admin_callbacks()),
        moving(truth, moves, names, admin, questions, move_requests_callbacks()),
        hub(loop, p.bus(), hub_options(p.opts()),
            [this](const std::string& from, const bus::envelope& got) { receive(from, got); }),
        http(loop, truth, questions, p.opts().instance) {
    truth.set_client_keys(client_keys);
    truth.set_login_seed(login_seed(p.opts().run_dir));
    first_file = std::move(config);
    truth.configure(first_file);
    shards.set_moves(
        {[this](const move_work& what, const result<bool>& how) { worked(what, how); },
         [this](const std::string& database, const map_decision& made) {
           const bool known = made.what == map_decision::outcome::known;
           if (!moves.in_pair(database)) {
             return moves.settled(database, known, made.epoch, made.job, steady_ms());
           }
           // Only what was read after the names counts.
           const cluster_pair* pair = names.known().pair_of(database);
           if (maps_awaited.erase(database) != 0 && pair != nullptr) names_settled(*pair, known);
         },
         [this](const std::string& database) { return moves.fence_of(database); },
         [this](const std::string& database) {
           const cluster_pair* pair = names.known().pair_of(database);
           return pair == nullptr ? cluster_pair{} : *pair;
         }});
  }

  void worked(const move_work& what, const result<bool>& how) {
    moves.worked(what, how, steady_ms());
    plan_refresh();
  }

  // ---- which servers have which name

  names_service::callbacks names_callbacks() {
    names_service::callbacks calls;
    calls.serve = [this](const std::set<std::string>& changed) {
      for (const std::string& name : changed) {
        // Of other servers: it is read again before anything is sent by it.
        database_state next = truth.state(name) ? *truth.state(name) : database_state{};
        next.bucket_map.clear();
        next.map_epoch = 0;
        next.refused.clear();
        truth.set_state(name, std::move(next));
        plans.forget(name);
      }
      shards.configure();
      for (const std::string& name : changed) {
        if (const auto* of = truth.state(name)) plans.moving(name, of->moving);
      }
      commits.configure();
      plan_refresh();
    };
    calls.changed = [this] { plan_refresh(); };
    calls.registered = [this](const cluster_pair& pair) {
      if (moves.job_of(pair.database).empty()) names_settled(pair, true);
    };
    calls.fences = [this] { return moves.fences(); };
    calls.worked = [this](const move_work& what, const result<bool>& how) { worked(what, how); };
    return calls;
  }

  void names_settled(const cluster_pair& pair, bool known) {
    moves.settled(pair.database, known, pair.epoch, pair.job, steady_ms(), pair.other);
  }

  // The fence of a move to other servers falls when it is known whose the name is, and where the
  // rows lie there.
  void settle_names(const std::string& database, const std::string& other) {
    maps_awaited.erase(database);
    names.look_up(database, other, [this, database](bool known) {
      const cluster_pair* pair = names.known().pair_of(database);
      const database_definition* served = truth.database(database);
      if (!known || pair == nullptr) return moves.settled(database, false, 0, {}, steady_ms());
      if (served == nullptr || !served->sharded) return names_settled(*pair, true);
      maps_awaited.insert(database);
      shards.settle(database);
    });
  }

  plan_desk::callbacks plan_callbacks() {
    plan_desk::callbacks calls;
    calls.answer = [this](const auto& to, std::uint64_t request, const plan::answer& made) {
      std::string payload;
      plan::encode(made, payload);
      send(to, kind::plan_answer, as_bytes(payload), request, made.epoch);
    };
    calls.error = [this](const auto& to, std::uint64_t request, const pg_error& error) {
      send_error(to, request, error);
    };
    calls.load = [this](const std::string& database) { shards.load_catalog(database); };
    // An asker keeps a plan under the epoch of the snapshot it has.
    calls.epoch = [this](const std::string& of) {
      const auto found = truth.members().all().find(of);
      return found == truth.members().all().end() ? 0 : found->second.sent_epoch;
    };
    calls.named = [this](const std::string& database) {
      const auto* known = truth.state(database);
      return known == nullptr || (!known->names_unknown && known->names_refused.empty());
    };
    return calls;
  }

  move_desk::callbacks move_callbacks() {
    move_desk::callbacks calls;
    calls.answer = [this](const move_desk::asker& to, std::uint64_t epoch,
                          const std::string& fence) {
      snapshot::move_answer answer;
      answer.epoch = epoch;
      answer.fence = fence;
      send(to.from, kind::move_answer, as_bytes(snapshot::to_json(answer)), to.request);
    };
    calls.error = [this](const move_desk::asker& to, const pg_error& error) {
      send_error(to.from, to.request, error);
    };
    calls.work = [this](const move_work& what) {
      what.other.empty() ? shards.work(what) : names.work(what);
    };
    calls.settle = [this](const std::string& database, const std::string& other) {
      other.empty() ? shards.settle(database) : settle_names(database, other);
    };
    calls.tell = [this](const move_desk::callbacks::word& said) {
      database_state next = truth.state(said.database) ? *truth.state(said.database)
                                                       : database_state{};
      next.moving = said.job;
      next.fence = said.fence;
      next.fenced = said.buckets;
      next.whole = said.whole;
      next.leads = !said.other.empty() && !said.job.empty();
      next.other = said.job.empty() ? std::string() : said.other;
      truth.set_state(said.database, std::move(next));
      plans.moving(said.database, said.job);
      if (said.other.empty()) return;
      next = truth.state(said.other) ? *truth.state(said.other) : database_state{};
      next.moving = said.job;
      next.other = said.job.empty() ? std::string() : said.database;
      truth.set_state(said.other, std::move(next));
      plans.moving(said.other, said.job);
    };
    calls.told = [this] { return !truth.untold() && truth.members().behind().empty(); };
    calls.drained = [this](const std::string& fence) {
      // Who was present with an earlier router may count on that for as long.
      return steady_ms() - began >= silence_ms && !truth.untold() &&
             truth.behind_fence(fence).empty();
    };
    calls.late = [this](const std::string& fence) {
      return fence.empty() ? truth.members().behind() : truth.behind_fence(fence);
    };
    return calls;
  }

  move_requests::callbacks move_requests_callbacks() {
    return {[this](const move_desk::asker& to, const std::string& json) {
              send(to.from, kind::move_answer, as_bytes(json), to.request);
            },
            [this](const move_desk::asker& to, const pg_error& error) {
              send_error(to.from, to.request, error);
            }};
  }

  admin_desk::callbacks admin_callbacks() {
    admin_desk::callbacks calls;
    calls.answer = [this](const auto& to, std::uint64_t request, const std::string& json) {
      send(to, kind::admin_answer, as_bytes(json), request);
    };
    calls.error = [this](const auto& to, std::uint64_t request, const pg_error& error) {
      send_error(to, request, error);
    };
    calls.reload = [this](auto done) { reload(std::move(done)); };
    calls.shutdown = [this] { shut_down(); };
    calls.now = steady_ms;
    calls.transactions = [this] { return commits.open(); };
    calls.self = [this] {
      router_facts self;
      self.instance = process.opts().instance;
      self.http = process.http_address();
      self.pid = ::getpid();
      self.now = steady_ms();
      if (stopping) self.state = "draining";
      return self;
    };
    return calls;
  }

  // A missing key file is reported by run(), when logs are there. Without keys bind() refuses tcp.
  bus::hub_options hub_options(const app::options& from) {
    bus::hub_options to;
    to.endpoint = from.router;
    try {
      to.curve = app::load_curve_server(from.curve_dir);
      if (!from.curve_dir.empty()) client_keys = app::load_curve_clients(from.curve_dir);
    } catch (const std::runtime_error& e) {
      key_problem = e.what();
    }
    to.allowed_client_keys = client_keys;
    return to;
  }

  void reload_keys() {
    if (process.opts().curve_dir.empty()) return;
    try {
      client_keys = app::load_curve_clients(process.opts().curve_dir);
      hub.allow(client_keys);
      truth.set_client_keys(client_keys);
    } catch (const std::runtime_error& e) {
      log::error("router", "client keys were not reloaded: {}", e.what());
    }
  }

  // ---- the bus

  bool send(const std::string& to, kind what, byte_span payload, std::uint64_t request = 0,
            std::uint64_t epoch = 0) {
    bus::header head;
    head.kind = what;
    head.request = request;
    head.epoch = epoch;
    head.trace = boot;
    return hub.send(to, head, payload);
  }

  void send_error(const std::string& to, std::uint64_t request, const pg_error& error) {
    send(to, kind::error, as_bytes(bus::error_json(error)), request);
  }

  void receive(const std::string& from, const bus::envelope& got) {
    if (got.header.kind == kind::hello) return greet(from, got);
    if (!truth.heard(from, steady_ms())) {
      // Another number than any router's makes it say hello.
      bus::header head;
      head.kind = kind::heartbeat;
      hub.send(from, head, {});
      return;
    }
    switch (got.header.kind) {
      case kind::heartbeat: send(from, kind::heartbeat, {}, got.header.request); break;
      case kind::ack:
        acknowledge(from, got);
        settle_acks();
        moves.tick(steady_ms());   // clients wait while a fence is waited for
        break;
      case kind::bye:
        log::info("router", "{} says bye", from);
        truth.bye(from);
        break;
      case kind::cancel: forward_cancel(from, got.payload); break;
      case kind::gather_answer:
        questions.answer(from, got.header.request, std::string(as_text(got.payload)));
        break;
      case kind::plan_request: plans.request(from, got, steady_ms()); break;
      case kind::admin_request:
        admin.request(from, got.header.request, read_admin_question(as_text(got.payload)).sql);
        break;
      case kind::command: obey(from, got); break;
      case kind::move_request:
        moving.request(from, got.header.request, as_text(got.payload));
        break;
      case kind::error: questions.failed(from, got.header.request); break;
      default:
        if (got.header.request != 0) {
          send_error(from, got.header.request, bus::unknown_kind(got.header.kind));
        }
    }
    plan_refresh();
  }

  void acknowledge(const std::string& from, const bus::envelope& got) {
    snapshot::in_effect said;
    if (!got.payload.empty()) {
      auto read = snapshot::from_json<snapshot::in_effect>(as_text(got.payload));
      if (!read) {
        return log::warn("router", "unreadable ack of {}: {}", from, read.error().message);
      }
      said = std::move(*read);
    }
    truth.acknowledge(from, got.header.epoch, said.over, std::move(said.drained));
  }

  void greet(const std::string& from, const bus::envelope& got) {
    const auto outcome = truth.hello(from, got.payload, got.header.epoch, steady_ms());
    if (outcome.what == membership::greeting::refused) {
      log::warn("router", "a hello of \"{}\" was refused: {}", from, outcome.reason);
      return;
    }
    const bool passing = truth.members().all().at(from).hello.service == "cli";
    // It was started anew, before its silence was noticed.
    if (outcome.what == membership::greeting::replaced) moves.gone(from, steady_ms());
    if (stopping && !passing && outcome.what != membership::greeting::repeated) {
      truth.forget(from);  // started anew by a supervisor: it is neither welcomed nor waited for
    } else if (outcome.what != membership::greeting::repeated && !passing) {
      log::info("router", "{} \"{}\" is here", truth.members().all().at(from).hello.service, from);
    }
    plan_refresh();
  }

  // What a peer may ask of the router: {"command": "catalog_changed", "database": …} after DDL. It is
  // answered when nobody uses plans of before any more.
  void obey(const std::string& from, const bus::envelope& got) {
    const command said = read_command(as_text(got.payload));
    if (said.name != "catalog_changed") {
      return log::warn("router", "unknown command of {} ignored", from);
    }
    const auto answer = [this, from, request = got.header.request] {
      if (request != 0) send(from, kind::command_answer, as_bytes("{}"), request);
    };
    plans.committed(said.database, steady_ms());
    if (truth.state(said.database) != nullptr) shards.publish(said.database);
    refresh();
    if (ack_waiters.size() >= max_ack_waiters) return answer();
    ack_waiters.push_back({steady_ms() + told_bound.count(), [answer](const auto&) { answer(); }});
    settle_acks();
  }

  void forward_cancel(const std::string& from, byte_span payload) {
    const auto number = holder_of_cancel(payload);
    const member* target = number ? truth.members().holder(*number) : nullptr;
    if (target == nullptr) return;   // a guess, or a worker that is gone: PostgreSQL is silent too
    if (target->hello.instance == from) return;
    send(target->hello.instance, kind::cancel, payload);
  }

  // The worker cancels the statement that waits, and says why.
  void end_deadlock(const commit::mark& victim) {
    const member* target = truth.members().holder(victim.client >> 20);
    if (target == nullptr) return;
    log::info("router", "a deadlock over several shards is ended by a cancel");
    const auto told = fmt::format(R"({{"command":"deadlock","client":{},"began":{}}})",
                                  victim.client, victim.began);
    send(target->hello.instance, kind::command, as_bytes(told));
  }

  // ---- snapshots

  // Once per turn of the loop, however many events came in it.
  void plan_refresh() {
    if (!truth.stale() || refresh_planned) return;
    refresh_planned = true;
    loop.defer([this] {
      refresh_planned = false;
      refresh();
    });
  }

  void refresh() {
    if (!truth.stale()) return settle_acks();
    for (const control::outgoing& one : truth.refresh()) {
      if (!send(one.to, one.kind, as_bytes(one.json), 0, one.epoch)) {
        log::warn("router", "could not send epoch {} to {}", one.epoch, one.to);
      }
    }
    settle_acks();
  }

  // ---- reload

  // `done` hears who had not acknowledged when the wait ended; or at once what is wrong.
  void reload(std::function<void(std::string mistakes, std::vector<std::string> behind)> done) {
    auto outcome = config::load(process.opts().config, process.opts().users);
    if (!outcome.config) {
      std::string text = config::format(outcome.mistakes);
      series.reload_failures.add();
      log::error("router", "reload refused, the old configuration stays: {}", text);
      return done(std::move(text), {});
    }
    if (const auto why = reload_objection(truth, names, commits, *outcome.config); !why.empty()) {
      series.reload_failures.add();
      log::error("router", "reload refused, the old configuration stays: {}", why);
      return done(why, {});
    }
    if (ack_waiters.size() >= max_ack_waiters) return done("too many reloads are waiting", {});
    const std::string unacted = unacted_line(*outcome.config);
    if (!unacted.empty()) log::warn("router", "{}", unacted);
    log::configure(outcome.config->general.log_level, outcome.config->general.log_format);
    reload_keys();
    warn_of_cutover(outcome.config->general);
    names.configure(std::move(*outcome.config));
    series.reloads.add();
    refresh();
    log::info("router", "configuration reloaded, epoch {}", truth.epoch());
    ack_waiters.push_back({steady_ms() + reload_bound.count(),
                           [done = std::move(done)](auto behind) { done({}, std::move(behind)); }});
    settle_acks();
  }

  static void warn_of_cutover(const config::general& general) {
    if (!general.cutover_action_unsafe) return;
    log::warn("router", "cutover_timeout_action = \"cutover\" would lose rows: it is taken for "
              "\"abort\"");
  }

  void settle_acks() {
    if (ack_waiters.empty()) return;
    const auto behind = truth.members().behind();
    const bool settled = behind.empty() && !truth.untold();
    for (auto it = ack_waiters.begin(); it != ack_waiters.end();) {
      if (!settled && steady_ms() < it->until) {
        ++it;
        continue;
      }
      const auto done = std::move(it->done);
      it = ack_waiters.erase(it);
      done(behind);
    }
  }

  // ---- the end

  // SHUTDOWN: everybody drains; the router stays while somebody may still need a plan.
  void shut_down() {
    if (std::exchange(stopping, true)) return;
    log::info("router", "shutting down the suite");
    stop_at = steady_ms() + shutdown_bound.count();
    for (const auto& [name, who] : truth.members().all()) {
      if (who.hello.service == "cli") continue;
      send(name, kind::command, as_bytes(R"({"command":"shutdown"})"));
    }
  }

  bool may_stop() const {
    if (!stopping) return false;
    const auto& all = truth.members().all();
    const std::int64_t now = steady_ms();
    return now >= stop_at || std::all_of(all.begin(), all.end(), [&](const auto& one) {
      const member& who = one.second;   // one that said bye and fell silent has ended
      return who.hello.service == "cli" || (who.draining && now - who.last_heard > 1500);
    });
  }

  // ---- time

  void tick() {
    loop.after(tick_every, [this] { tick(); });
    truth.tick(steady_ms());
    for (const std::string& name : truth.gone_since_last()) {
      if (!name.starts_with("cli-")) log::info("router", "{} is gone", name);
      questions.lost(name);
      moves.gone(name, steady_ms());
    }
    questions.tick(steady_ms());
    admin.tick(steady_ms());
    plans.tick(steady_ms());
    names.tick(steady_ms());
    shards.tick(steady_ms());
    moves.tick(steady_ms());
    commits.tick(steady_ms());
    settle_acks();
    plan_refresh();
    series.update(truth, plans);
    if (may_stop()) loop.stop();
  }

  int run() {
    if (!key_problem.empty()) {
      log::error("router", "{}", key_problem);
      return 2;
    }
    auto where = hub.bind();
    if (!where) {
      log::error("router", "{}", where.error().message);
      return 1;
    }
    bound = *where;
    if (const auto problem = http.start(truth.configuration().general); !problem.empty()) {
      log::error("router", "{}", problem);
      return 1;
    }
    const std::string unacted = unacted_line(truth.configuration());
    if (!unacted.empty()) log::warn("router", "{}", unacted);
    log::info("router", "listening on {}, epoch {}", bound, truth.epoch());
    listens = true;
    warn_of_cutover(truth.configuration().general);
    names.configure(std::move(first_file));
    tick();
    loop.run();
    names.stop();
    shards.stop();
    commits.stop();
    return 0;
  }
};

router_service::router_service(app::process& process, config::configuration config)
    : state_(std::make_unique<state>(process, std::move(config))) {}
router_service::~router_service() = default;

app::hooks router_service::hooks() {
  app::hooks made;
  state* s = state_.get();
  made.run = [s] { return s->run(); };
  made.drain = [s] { s->loop.post([s] { s->loop.stop(); }); };
  made.reload = [s](auto done) {
    s->loop.post([s, done = std::move(done)] {
      s->reload([done](const std::string& mistakes, const std::vector<std::string>& behind) {
        done(!mistakes.empty() ? "reload refused: " + mistakes
             : behind.empty()  ? "reloaded"
                               : fmt::format("reloaded, and not acknowledged yet by {}",
                                             fmt::join(behind, ", ")));
      });
    });
  };
  made.ready = [s] { return std::string(s->listens ? "" : "not listening yet"); };
  return made;
}

}  // namespace pgsled::router
