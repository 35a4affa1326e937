#include "services/replicator/move_service.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "common/auth/scram.hpp"
#include "common/log/log.hpp"

namespace pgsled::replicator {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds between_looks{1000};
constexpr milliseconds between_words{100};   // of progress

using metrics::type;
constexpr metrics::description running_now{"pgsled_moves_running", type::gauge,
                                           "Moves of buckets that this process runs."};
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

std::string random_name() {
  const auto random = auth::random_bytes(8);
  return fmt::format("{:016x}", load_be<std::uint64_t>(random.data()));
}

}  // namespace

move_service::move_service(net::reactor& loop, bus::peer& router) : loop_(loop), router_(router) {
  auto& all = metrics::process_registry();
  registered_ = {all.add(running_now, {}, running_now_),
                 all.add(over_now, {{"outcome", "done"}}, done_),
                 all.add(over_now, {{"outcome", "undone"}}, undone_),
                 all.add(copied, {}, rows_),
                 all.add(followed, {}, changes_),
                 all.add(behind, {}, lag_),
                 all.add(fenced, {}, fences_)};
  loop_.after(between_looks, [this] { look(); });
}

move_service::~move_service() {
  stop();
  if (running_) running_->thread.join();
}

void move_service::configure(const snapshot::replicator& from) {
  databases_ = from.databases;
  registered_moves_ = from.moving;
}

void move_service::stop() {
  *stopped_ = true;
  if (running_) running_->runner->stop();
}

reshard_hooks move_service::hooks() {
  reshard_hooks to;
  to.start = [this](const std::string& database, bool dry) { return start(database, dry); };
  to.abort = [this](const std::string& job) { return abort(job); };
  to.list = [this] { return std::vector<move_progress>(moves_.begin(), moves_.end()); };
  return to;
}

result<std::string> move_service::start(const std::string& database, bool dry_run) {
  if (*stopped_) return failure("57P01", "the replicator is draining");
  if (running_) {
    return failure("55006", fmt::format("this replicator runs the move {} of database \"{}\"",
                                        moves_.back().job, moves_.back().database));
  }
  if (std::find(databases_.begin(), databases_.end(), database) == databases_.end()) {
    return failure("3D000", fmt::format("database \"{}\" has no tables that are sharded by hash",
                                        database));
  }
  move_order order{database, random_name(), false, dry_run};
  const auto job = order.job;
  begin(std::move(order));
  return job;
}

result<bool> move_service::abort(const std::string& job) {
  if (!running_ || moves_.back().job != job) {
    return failure("42704", fmt::format("this replicator does not run the move {}", job));
  }
  running_->runner->abort();
  return true;
}

void move_service::begin(move_order order) {
  move_progress first;
  first.job = order.job;
  first.database = order.database;
  first.outcome = "running";
  running_now_.set(1);
  moves_.push_back(std::move(first));
  while (moves_.size() > remembered) moves_.pop_front();
  running_ = std::make_unique<running>();
  told_step_.clear();
  running_->runner = std::make_unique<move_runner>(
      std::move(order), random_name(),
      [this](const snapshot::move_request& request, milliseconds deadline) {
        return ask(request, deadline);
      },
      [this](const move_progress& now) {
        const auto at = std::chrono::steady_clock::now();
        const bool same = now.outcome == "running" && now.step == told_step_;
        if (same && at - told_ < between_words) return;
        told_ = at;
        told_step_ = now.step;
        loop_.post([this, now] { heard(now); });
      });
  running_->thread = std::thread([this, runner = running_->runner.get()] {
    try {
      runner->run();
    } catch (const std::exception& e) {
      log::error("move", "ended by {}", e.what());   // it is gone on with like any lost one
    }
    loop_.post([this] { over(); });
  });
}

void move_service::heard(const move_progress& now) {
  if (moves_.empty() || moves_.back().job != now.job) return;
  count(moves_.back(), now);
  moves_.back() = now;
}

void move_service::count(const move_progress& before, const move_progress& now) {
  const auto grown = [](std::int64_t from, std::int64_t to) {
    return to > from ? static_cast<std::uint64_t>(to - from) : 0;   // less: begun again
  };
  rows_.add(grown(before.rows, now.rows));
  changes_.add(grown(before.changes, now.changes));
  fences_.add(grown(before.fences, now.fences));
  const bool runs = now.outcome == "running";
  lag_.set(runs ? static_cast<std::uint64_t>(now.lag) : 0);
  if (now.outcome == "done") done_.add();
  if (now.outcome == "failed" || now.outcome == "aborted") undone_.add();
}

void move_service::over() {
  running_->thread.join();
  running_.reset();
  running_now_.set(0);
  lag_.set(0);
  if (moves_.back().outcome == "running") moves_.back().outcome = "lost";
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
  if (running_ || !router_.connected()) return;
  for (const auto& [database, job] : registered_moves_) {
    log::info("move", "looks after the move {} of database \"{}\"", job, database);
    return begin({database, job, true, false});
  }
}

}  // namespace pgsled::replicator
