#include "services/replicator/move_service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>

#include "common/auth/scram.hpp"
#include "common/log/log.hpp"

namespace pgsled::replicator {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds of_others{2000};   // to hear what other replicators say
constexpr milliseconds between_looks{1000};
constexpr milliseconds between_words{100};   // of progress
constexpr milliseconds until_it_has_heard{500};

using metrics::type;
constexpr metrics::description running_now{"pgsled_moves_running", type::gauge,
                                           "Moves of buckets that this process runs."};
constexpr metrics::description paused_now{
    "pgsled_moves_paused", type::gauge,
    "Moves of this process that wait until all shards have the same tables again."};
constexpr metrics::description over_now{"pgsled_moves_total", type::counter,
                                        "Moves that are over, by outcome."};
constexpr metrics::description copied{"pgsled_move_rows_total", type::counter,
                                      "Rows copied to a new shard."};
constexpr metrics::description followed{"pgsled_move_changes_total", type::counter,
                                        "Changes applied to a new shard."};
constexpr metrics::description behind{"pgsled_move_lag_bytes", type::gauge,
                                      "Log of the sources that is not applied yet."};
constexpr metrics::description fenced{"pgsled_move_fences_total", type::counter,
                                      "Times a fence was asked for."};
constexpr metrics::description waited{
    "pgsled_move_rows_waited_total", type::counter,
    "Rows that had to wait for a place, because one of another shard was in it."};
constexpr metrics::description turned_away{
    "pgsled_moves_refused_total", type::counter,
    "Moves refused because this process runs as many as it may."};

std::string random_name() {
  const auto random = auth::random_bytes(8);
  return fmt::format("{:016x}", load_be<std::uint64_t>(random.data()));
}

std::int64_t steady_ms() {
  return std::chrono::duration_cast<milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

move_service::move_service(net::reactor& loop, bus::peer& router) : loop_(loop), router_(router) {
  auto& all = metrics::process_registry();
  registered_ = {all.add(running_now, {}, running_now_),
                 all.add(paused_now, {}, paused_now_),
                 all.add(over_now, {{"outcome", "done"}}, done_),
                 all.add(over_now, {{"outcome", "undone"}}, undone_),
                 all.add(copied, {}, rows_),
                 all.add(followed, {}, changes_),
                 all.add(behind, {}, lag_),
                 all.add(fenced, {}, fences_),
                 all.add(turned_away, {}, refused_),
                 all.add(waited, {}, waited_)};
  loop_.after(between_looks, [this] { look(); });
}

move_service::~move_service() {
  stop();
  for (auto& [number, one] : running_) one->thread.join();
}

void move_service::configure(const snapshot::replicator& from) {
  databases_ = from.databases;
  registered_moves_ = from.moving;
  registered_clusters_ = from.clusters;
  automatic_.configure(from.joining);
  // Clients may be waiting for the end of one whose replicator has died.
  loop_.post([this] { take_over(); });
}

void move_service::stop() {
  *stopped_ = true;
  for (auto& [number, one] : running_) one->runner->stop();
}

reshard_hooks move_service::hooks() {
  reshard_hooks to;
  to.start = [this](const reshard_order& order) { return start(order, false); };
  to.abort = [this](const std::string& job, auto done) { abort(job, std::move(done)); };
  to.act = [this](const std::string& job, job_runner::wish what, auto done) {
    act(job, what, std::move(done));
  };
  to.list = [this] { return moves(); };
  to.list_all = [this](auto done) { list_all(std::move(done)); };
  return to;
}

std::vector<move_progress> move_service::moves() const {
  std::vector<move_progress> all;
  for (const known& one : moves_) {
    if (!one.now.only_tried) all.push_back(one.now);
  }
  return all;
}

move_service::known* move_service::find(std::uint64_t number) {
  for (known& one : moves_) {
    if (one.number == number) return &one;
  }
  return nullptr;
}

const move_service::known* move_service::of_database(const std::string& database) const {
  for (const known& one : moves_) {
    if (!running_.contains(one.number)) continue;
    if (one.now.database == database || one.other == database) return &one;
  }
  return nullptr;
}

job_runner* move_service::runner_of(const std::string& job) const {
  for (const known& one : moves_) {
    const auto found = running_.find(one.number);
    if (found != running_.end() && one.now.job == job) return found->second->runner.get();
  }
  return nullptr;
}

std::size_t move_service::really_running() const {
  std::size_t count = 0;
  for (const known& one : moves_) {
    count += running_.contains(one.number) && !one.now.only_tried ? 1 : 0;
  }
  return count;
}

void move_service::forget_old() {
  for (auto one = moves_.begin(); moves_.size() > remembered && one != moves_.end();) {
    one = running_.contains(one->number) ? std::next(one) : moves_.erase(one);
  }
}

result<std::string> move_service::start(const reshard_order& asked, bool automatic) {
  if (*stopped_) return failure("57P01", "the replicator is draining");
  const std::array names{asked.database, asked.to};
  for (const auto& name : names) {
    const auto* one = name.empty() ? nullptr : of_database(name);
    if (one == nullptr || one->now.only_tried) continue;
    return failure("55006", fmt::format("this replicator runs the move {} of database \"{}\"",
                                        one->now.job, one->now.database));
  }
  if (running_.size() >= most_at_once) {   // one that is tried may become one of ours
    refused_.add();
    return failure("55006", fmt::format("this replicator runs {} moves, and no more at once: wait "
                                        "for the end of one, or ask another replicator",
                                        most_at_once));
  }
  if (!asked.to.empty()) {
    cluster_order order;
    order.database = asked.database;
    order.to = asked.to;
    order.job = random_name();
    order.dry_run = asked.dry_run;
    order.only_schema = asked.only_schema;
    order.automatic_cutover = asked.automatic_cutover;
    const auto job = order.job;
    begin(std::move(order));
    return job;
  }
  if (std::find(databases_.begin(), databases_.end(), asked.database) == databases_.end()) {
    return failure("3D000", fmt::format("database \"{}\" has no tables that are sharded by hash",
                                        asked.database));
  }
  move_order order;
  order.database = asked.database;
  order.job = random_name();
  order.dry_run = asked.dry_run;
  order.kind = asked.kind;
  order.shard = asked.shard;
  order.automatic = automatic;
  const auto job = order.job;
  begin(std::move(order));
  return job;
}

bool move_service::abort_own(const std::string& job) {
  auto* runner = runner_of(job);
  if (runner == nullptr) return false;
  runner->abort();
  return true;
}

std::optional<result<bool>> move_service::act_own(const std::string& job, job_runner::wish what) {
  known* of = nullptr;
  for (known& one : moves_) {
    if (!running_.contains(one.number)) continue;
    // The admin database may leave out which one.
    const bool any = job.empty() && !one.other.empty() && !one.now.only_tried;
    if (one.now.job != job && !any) continue;
    if (of != nullptr) {
      return failure("55006", "several moves to other servers run here: say which one");
    }
    of = &one;
  }
  if (of == nullptr) return std::nullopt;
  auto done = running_.at(of->number)->runner->act(what);
  if (done) {
    of->asked_to_go_on = std::chrono::steady_clock::now();
    heard(of->number, move_progress(of->now));
  }
  return done;
}

void move_service::abort(const std::string& job, std::function<void(result<bool>)> done) {
  if (abort_own(job)) return done(true);
  ask_others("abort", job, std::move(done));
}

void move_service::act(const std::string& job, job_runner::wish what,
                       std::function<void(result<bool>)> done) {
  if (const auto here = act_own(job, what)) return done(*here);
  ask_others(what == job_runner::wish::cut_over    ? "cutover"
             : what == job_runner::wish::roll_back ? "roll_back"
                                                   : "finish", job, std::move(done));
}

// A move that runs elsewhere is reached by way of the router.
void move_service::ask_others(const char* what, const std::string& job,
                              std::function<void(result<bool>)> done) {
  snapshot::move_request request;
  request.do_ = what;
  request.job = job;
  router_.ask(bus::kind::move_request, as_bytes(snapshot::to_json(request)), of_others,
              [done = std::move(done)](const result<bus::envelope>& got) {
                if (!got) return done(tl::unexpected(got.error()));
                done(true);
              });
}

void move_service::list_all(std::function<void(bool, std::vector<std::string>)> done) {
  std::vector<std::string> all;
  for (const auto& [database, job] : registered_moves_) {
    move_progress one;
    one.job = job;
    one.database = database;
    one.outcome = "waiting";
    one.began = unix_ms();
    all.push_back(to_json(one));
  }
  for (const auto& [database, other, job] : registered_clusters_) {
    move_progress one;
    one.job = job;
    one.database = database;
    one.goal = "new-cluster " + other;
    one.outcome = "waiting";
    one.began = unix_ms();
    all.push_back(to_json(one));
  }
  for (const auto& one : moves()) all.push_back(to_json(one));
  snapshot::move_request request;
  request.do_ = "moves";
  router_.ask(bus::kind::move_request, as_bytes(snapshot::to_json(request)), of_others,
              [done = std::move(done), all = std::move(all)](const result<bus::envelope>& got) {
                auto moves = all;
                if (!got) return done(false, std::move(moves));
                auto said = snapshot::from_json<snapshot::move_answer>(as_text(got->payload));
                if (!said) return done(false, std::move(moves));
                for (auto& one : said->moves) moves.push_back(std::move(one));
                done(true, std::move(moves));
              });
}

void move_service::begin(move_order order) {
  move_progress first;
  first.job = order.job;
  first.database = order.database;
  first.automatic = order.automatic;
  first.only_tried = order.resume;
  begin(std::move(first), {}, [&](std::string runner, auto ask, auto tell) {
    return std::make_unique<move_runner>(std::move(order), std::move(runner), std::move(ask),
                                         std::move(tell));
  });
}

void move_service::begin(cluster_order order) {
  move_progress first;
  first.job = order.job;
  first.database = order.database;
  first.goal = goal_of(order);
  first.only_tried = order.resume;
  auto other = order.to;
  begin(std::move(first), std::move(other), [&](std::string runner, auto ask, auto tell) {
    return std::make_unique<cluster_runner>(std::move(order), std::move(runner), std::move(ask),
                                            std::move(tell));
  });
}

void move_service::begin(move_progress first, std::string other, const maker& make) {
  first.outcome = "running";
  first.began = unix_ms();
  const auto number = ++numbers_;
  moves_.push_back({number, std::move(other), std::move(first)});
  auto mine = std::make_shared<running>();
  running_[number] = mine;
  forget_old();
  count_running();
  mine->runner = make(
      random_name(),
      [this](const snapshot::move_request& request, milliseconds deadline) {
        return ask(request, deadline);
      },
      [this, number, of = std::weak_ptr<running>(mine)](const move_progress& now) {
        const auto self = of.lock();
        if (!self) return;
        const auto at = std::chrono::steady_clock::now();
        const bool same = now.outcome == "running" && now.step == self->told_step;
        if (same && at - self->told < between_words) return;
        self->told = at;
        self->told_step = now.step;
        loop_.post([this, number, now] { heard(number, now); });
      });
  mine->thread = std::thread([this, number, runner = mine->runner.get()] {
    try {
      runner->run();
    } catch (const std::exception& e) {
      log::error("move", "ended by {}", e.what());   // it is gone on with like any lost one
    }
    loop_.post([this, number] { over(number); });
  });
}

void move_service::heard(std::uint64_t number, const move_progress& now) {
  known* one = find(number);
  if (one == nullptr) return;
  count(one->now, now);
  one->now = now;
  if (std::chrono::steady_clock::now() - one->asked_to_go_on < until_it_has_heard &&
      now.outcome == "running") {
    one->now.sqlstate.clear();
    one->now.error.clear();
  }
  count_running();
}

void move_service::count_running() {
  std::uint64_t lag = 0, paused = 0;
  for (const known& one : moves_) {
    if (running_.contains(one.number) && !one.now.only_tried && one.now.outcome == "running") {
      lag += static_cast<std::uint64_t>(std::max<std::int64_t>(one.now.lag, 0));
      paused += one.now.step == moving::name_of(moving::step::pause) ? 1 : 0;
    }
  }
  lag_.set(lag);
  paused_now_.set(paused);
  running_now_.set(really_running());
}

void move_service::count(const move_progress& before, const move_progress& now) {
  if (now.only_tried) return;
  const auto grown = [](std::int64_t from, std::int64_t to) {
    return to > from ? static_cast<std::uint64_t>(to - from) : 0;   // less: begun again
  };
  rows_.add(grown(before.rows, now.rows));
  changes_.add(grown(before.changes, now.changes));
  fences_.add(grown(before.fences, now.fences));
  waited_.add(grown(before.waited, now.waited));
  if (now.outcome == "done") done_.add();
  if (now.outcome == "failed" || now.outcome == "aborted" || now.outcome == "returned") {
    undone_.add();
  }
}

void move_service::over(std::uint64_t number) {
  running_.at(number)->thread.join();
  running_.erase(number);
  count_running();
  known* one = find(number);
  if (one == nullptr) return;
  auto& last = one->now;
  const auto drop = [&] {
    std::erase_if(moves_, [&](const known& of) { return of.number == number; });
  };
  if (last.only_tried) return drop();
  if (last.outcome == "running") last.outcome = "lost";
  if (!last.automatic) return;
  const auto now = steady_ms();
  automatic_.ended(last.database, last.needless             ? patience::end::nothing_to_do
                                  : last.outcome == "done"    ? patience::end::done
                                  : last.outcome == "aborted" ? patience::end::aborted
                                                              : patience::end::failed, now);
  if (last.needless) return drop();
  if (last.outcome == "done") return;
  last.next_try_ms = automatic_.next_try(last.database, now).value_or(-1);
  log::warn("move", "the shard of database \"{}\" that is joining has not got its rows: {}; {}",
            last.database, last.error.empty() ? last.outcome : last.error,
            last.next_try_ms >= 0 ? fmt::format("tried again in {} s", last.next_try_ms / 1000)
                                  : "not tried again until a RELOAD");
}

// On the runner's thread: asks by the loop, and waits for the answer.
result<std::string> move_service::ask(const snapshot::move_request& request,
                                      milliseconds deadline) {
  auto promised = std::make_shared<std::promise<result<std::string>>>();
  auto answer = promised->get_future();
  loop_.post([this, promised, deadline, text = snapshot::to_json(request)] {
    if (*stopped_) return promised->set_value(failure("57P01", "the replicator is draining"));
    router_.ask(bus::kind::move_request, as_bytes(text), deadline,
                [promised](result<bus::envelope> got) {
                  if (!got) return promised->set_value(tl::unexpected(got.error()));
                  promised->set_value(std::string(as_text(got->payload)));
                });
  });
  while (answer.wait_for(milliseconds(20)) != std::future_status::ready) {
    if (*stopped_) return failure("57P01", "the replicator is draining");
  }
  return answer.get();
}

// A move that is registered, but whose runner is gone. Whether it is, shows when it is taken.
void move_service::look() {
  if (*stopped_) return;
  loop_.after(between_looks, [this] { look(); });
  take_over();
  if (router_.connected()) add_by_itself();
}

// One after the other: one that somebody runs must not keep this process from another's.
void move_service::take_over() {
  if (*stopped_ || !router_.connected() || running_.size() >= most_at_once) return;
  if (running_.size() > really_running()) return;   // one is tried just now
  const auto all = registered_moves_.size() + registered_clusters_.size();
  for (std::size_t tries = 0; tries < all; ++tries) {
    const auto next = looked_at_++ % all;
    if (next < registered_moves_.size()) {
      move_order order;
      std::tie(order.database, order.job) = registered_moves_[next];
      if (runner_of(order.job) != nullptr) continue;
      order.resume = true;
      return begin(std::move(order));
    }
    cluster_order order;
    const auto& one = registered_clusters_[next - registered_moves_.size()];
    std::tie(order.database, order.to, order.job) = std::tie(one.database, one.other, one.job);
    if (runner_of(order.job) != nullptr) continue;
    order.resume = true;
    return begin(std::move(order));
  }
}

void move_service::add_by_itself() {
  if (running_.size() >= most_at_once) return;
  const auto database = automatic_.due(steady_ms(), [this](const std::string& name) {
    return of_database(name) != nullptr;
  });
  if (!database) return;
  log::info("move", "a shard of database \"{}\" is joining", *database);
  const auto begun = start({*database, moving::goal_kind::add_shard, {}, false}, true);
  if (!begun) automatic_.ended(*database, patience::end::failed, steady_ms());
}

}  // namespace pgsled::replicator
