#include "services/replicator/cluster/runner.hpp"

#include <fmt/format.h>

#include <thread>

#include "common/commit/statements.hpp"
#include "common/log/log.hpp"
#include "services/replicator/move/source.hpp"

namespace pgsled::replicator {

namespace {

using clock = std::chrono::steady_clock;
using commit::statements::literal;
using moving::cluster_step;
using moving::cluster_stored;
using std::chrono::milliseconds;

constexpr milliseconds usual_answer{20'000};
constexpr milliseconds between_slot_looks{2000};

bool may_be_interrupted(cluster_step what) {
  return what == cluster_step::check || what == cluster_step::prepare ||
         what == cluster_step::copy || what == cluster_step::catch_up ||
         what == cluster_step::compare || what == cluster_step::ready ||
         what == cluster_step::back;
}

}  // namespace

std::string goal_of(const cluster_order& order) {
  return fmt::format("{} {}", order.only_schema ? schema_sync : new_cluster, order.to);
}

cluster_runner::cluster_runner(cluster_order order, std::string runner, asker ask, teller tell)
    : order_(std::move(order)), ask_(std::move(ask)), tell_(std::move(tell)),
      runner_(std::move(runner)) {
  scene_.job = order_.job;
  scene_.database = order_.database;
  scene_.to = order_.to;
  scene_.runner = runner_;
  scene_.stop = &quit_;
  scene_.automatic_cutover = order_.automatic_cutover;
  progress_.job = order_.job;
  progress_.database = order_.database;
  progress_.goal = goal_of(order_);
  progress_.outcome = "running";
  progress_.only_tried = order_.resume;
  progress_.began = unix_ms();
}

void cluster_runner::abort() {
  if (at_ == step::reverse) {
    finish_ = true;
    return;
  }
  aborted_ = true;
  if (interruptible_) quit_ = true;
}

void cluster_runner::stop() {
  stopped_ = true;
  quit_ = true;
}

result<bool> cluster_runner::act(wish what) {
  const step now = at_;
  if (now == step::reverse && what != wish::cut_over) {
    (what == wish::finish ? finish_ : roll_back_) = true;
    return true;
  }
  if (what == wish::cut_over && !past_ && now < step::flip) {
    cut_over_ = true;
    return true;
  }
  return failure("55000", fmt::format("job {} is at \"{}\": {}", order_.job, moving::name_of(now),
                                      what == wish::cut_over
                                          ? "it has switched over, or is not going to"
                                          : "there is a way back, and something to finish, while "
                                            "it is at \"reverse\""));
}

void cluster_runner::tell() {
  note_slots();
  tell_(progress_);
}

void cluster_runner::note_slots() {
  std::vector<move_slot> slots;
  if (!flow_) return progress_.slots.clear();
  for (const auto& [destination, stream] : flow_->streams()) {
    const auto& from = scene_.side(flow_->from());
    const auto& at = from.where.shards.at(stream->source());
    const auto& scene = *scene_.side(flow_->to()).gets.at(destination);
    move_slot one{at.host, at.database, scene.slot(stream->source()),
                  moving::lsn_to_text(stream->reached()), at.port, stream->behind(), unix_ms(),
                  at_ == step::copy};
    slots.push_back(std::move(one));
  }
  progress_.now_at(std::move(slots));
}

void cluster_runner::run() {
  if (order_.dry_run || order_.only_schema) return run_check();
  while (!stopped_) {
    const auto next = job_.next();
    if (!next) break;
    at_ = next->what;
    wait(next->wait);
    if (!stopped_) play(next->what);
  }
  forget_streams();
  locks_.clear();
  if (!job_.over()) return;
  progress_.outcome = job_.done() ? "done" : job_.returned() ? "returned"
                      : aborted_ ? "aborted" : "failed";
  progress_.sqlstate.clear();
  progress_.error.clear();
  if (const auto& why = job_.reason(); why && !job_.returned()) {
    progress_.because(*why);
    progress_.detail = why->detail;
  }
  progress_.ended = unix_ms();
  if (!progress_.only_tried) {
    log::info("move", "{} of database \"{}\" to \"{}\": {}{}{}", order_.job, order_.database,
              order_.to, progress_.outcome, progress_.error.empty() ? "" : ": ", progress_.error);
  }
  tell();
}

// Nothing is registered, and nobody goes on with it.
void cluster_runner::run_check() {
  progress_.step = name_of(step::check);
  tell();
  auto error = ask_where();
  // A router that has just read the file does not know all of it yet.
  for (int tries = 0; error && error->sqlstate == "57P03" && tries < 30 && !stopped_; ++tries) {
    wait(500);
    error = ask_where();
  }
  if (!error && order_.only_schema && !scene_.registered.empty()) {
    error = pg_error{"55006", fmt::format("the move {} of database \"{}\" is under way",
                                          scene_.registered, order_.database), {}, {}};
  }
  if (!error) error = scene_.open_all();
  if (!error) error = check();
  progress_.outcome = error ? "failed" : order_.dry_run ? "checked" : "done";
  if (error) progress_.because(*error);
  progress_.ended = unix_ms();
  tell();
}

void cluster_runner::play(step what) {
  past_ = job_.past_flip();
  interruptible_ = may_be_interrupted(what) && !job_.past_flip();
  quit_ = stopped_.load() || (interruptible_ && aborted_);
  if (aborted_) job_.abort();
  progress_.step = name_of(what);
  tell();
  if (!progress_.only_tried) log::info("move", "{}: {}", order_.job, moving::name_of(what));
  switch (what) {
    case step::take: return play_take();
    case step::settle: return play_settle();
    case step::flip: return play_flip();
    case step::reverse: return play_reverse();
    default: break;
  }
  if (const auto error = perform(what)) return fail(what, *error);
  if (aborted_) job_.abort();
  job_.succeeded();
}

// A runner that is stopped leaves everything as it is.
void cluster_runner::fail(step what, const pg_error& why) {
  if (aborted_) job_.abort();
  if (stopped_) return;
  if (!progress_.only_tried || why.sqlstate != "55006") {
    log::warn("move", "{}: {}: {} {}", order_.job, moving::name_of(what), why.sqlstate,
              why.message);
  }
  if (lost_) {   // whoever has it now goes on; nothing is touched
    stopped_ = true;
    return;
  }
  const bool transient = is_transient(what, why);
  const bool streams_last = transient || what == step::lift || what == step::flipped ||
                            what == step::settle || what == step::end;
  if (job_.past_flip()) {
    progress_.because(why);
    if (!streams_last) forget_streams();
  }
  job_.failed(why, transient);
}

bool cluster_runner::is_transient(step what, const pg_error& why) const {
  if (what == step::begin) return why.sqlstate != "55006" && why.sqlstate != "55000";
  if (what == step::take) {
    return why.sqlstate != "55006" && why.sqlstate != "3D000" && why.sqlstate != "55000";
  }
  // A router that has been restarted knows of the fence no more, or not yet that it is not there.
  if (what == step::fence && (why.sqlstate == "57P03" || why.sqlstate == "55006")) return true;
  if (what == step::fence || what == step::verify || what == step::compare ||
      what == step::back) {
    return why.sqlstate == "55P03";
  }
  // The fence did not last.
  return what == step::flip && (why.sqlstate == "55006" || why.sqlstate == "40001");
}

void cluster_runner::play_take() {
  auto found = cluster_stored::nothing;
  if (const auto error = take(found)) return fail(step::take, *error);
  job_ = moving::cluster_job(runs_);
  if (aborted_) job_.abort();
  job_.took(found);
}

void cluster_runner::play_settle() {
  auto found = cluster_stored::nothing;
  if (const auto error = adopt_it(found)) return fail(step::settle, *error);
  job_.settled(found);
}

void cluster_runner::play_reverse() {
  if (!finish_) {
    if (const auto error = reverse(); error && !finish_) return fail(step::reverse, *error);
  }
  if (stopped_) return;
  progress_.sqlstate.clear();
  progress_.error.clear();
  if (finish_) return job_.told(moving::cluster_job::wish::finish);
  roll_back_ = false;
  job_.told(moving::cluster_job::wish::roll_back);
}

// One transaction of one server: the name goes, or it does not. What was applied on the other side
// is on its disks by then (verify).
void cluster_runner::play_flip() {
  const auto holder = job_.on_the_way_back() ? cluster_side::fresh : cluster_side::old;
  const auto done = scene_.side(holder).links.front().query(fmt::format(
      "SET LOCAL synchronous_commit = on; SELECT pgsled.hold_job({}, {}); "
      "SELECT pgsled.hand_over({}, {})", literal(order_.job), literal(scene_.runner),
      literal(order_.job), literal(fence_)));
  if (done) return job_.succeeded();
  const auto& why = done.error();
  if (!why.sqlstate.starts_with("08") && !why.sqlstate.starts_with("57")) {
    return fail(step::flip, why);
  }
  if (stopped_) return;
  log::warn("move", "{}: flip: {} {}", order_.job, why.sqlstate, why.message);
  job_.uncertain(why);
}

trouble cluster_runner::perform(step what) {
  const bool flows = what == step::catch_up || what == step::compare || what == step::ready ||
                     what == step::back || what == step::fence || what == step::verify;
  if (flows && !flow_) return pg_error{"08006", "the streams have ended", {}, {}};
  switch (what) {
    case step::check: return check();
    case step::begin: return begin();
    case step::record: return record();
    case step::prepare: return prepare();
    case step::copy: return copy();
    case step::catch_up: return flow_->catch_up();
    case step::compare: {
      auto error = flow_->compare();
      return error || job_.past_flip() ? error : flow_->validate();
    }
    case step::ready: return ready();
    case step::back: return back();
    case step::fence: return fence();
    case step::verify: return verify();
    case step::flipped: return flipped();
    case step::finish: return finish();
    case step::lift: return let_go("lift");
    case step::undo: return undo();
    case step::end: return let_go("end");
    case step::take:
    case step::settle:
    case step::flip:
    case step::reverse: break;
  }
  return pg_error{"XX000", "no such step", {}, {}};
}

trouble cluster_runner::ask(const char* what, std::string* answer, std::int64_t wait_ms,
                            bool lost) {
  snapshot::move_request request;
  request.do_ = what;
  request.database = order_.database;
  request.to = order_.to;
  request.job = order_.job;
  request.wait_ms = wait_ms;
  request.whole = wait_ms > 0;
  request.lost = lost;
  auto got = ask_(request, usual_answer + milliseconds(wait_ms));
  if (!got) return got.error();
  if (answer != nullptr) *answer = std::move(*got);
  return std::nullopt;
}

// What is not registered is neither fenced nor to be ended. A router that has just begun says so of
// everything until it has read the shards.
trouble cluster_runner::let_go(const char* what) {
  auto error = ask(what, nullptr, 0, scene_.lost.has_value());
  if (!error || error->sqlstate != "55006") return error;
  std::string text;
  if (auto unknown = ask("where", &text)) return unknown;
  const auto got = snapshot::from_json<snapshot::cluster_where>(text);
  if (!got) return got.error();
  return got->moving == order_.job ? error : trouble();
}

trouble cluster_runner::ask_where(bool handed_over) {
  std::string text;
  if (auto error = ask("where", &text)) return error;
  auto got = snapshot::from_json<snapshot::cluster_where>(text);
  if (!got) return got.error();
  for (const auto* one : {&got->from, &got->to}) {
    // Of one that is not reached nothing but the name may be known.
    if (scene_.lost && one == &got->to) continue;
    bool good = !one->shards.empty() && !one->buckets.empty() &&
                one->buckets.size() <= moving::max_buckets;
    for (const auto shard : one->buckets) good = good && shard < one->shards.size();
    if (!good) return pg_error{"57P03", "the shard map is not known yet", {}, {}};
  }
  scene_.set(std::move(*got), handed_over);
  return std::nullopt;
}

// What the servers that are left say is enough once they have been given the name: nobody else could
// have given it away again.
bool cluster_runner::adopt_without_other(cluster_stored& found) {
  scene_.lost = cluster_side::fresh;   // as the router names them: the one without the name
  auto error = ask_where();
  const bool ours = scene_.registered == order_.job || (scene_.registered.empty() && taken_);
  if (!error && !ours) error = pg_error{"55006", "over", {}, {}};
  if (!error && scene_.open_side(cluster_side::old)) error = pg_error{"08006", "lost", {}, {}};
  if (!error && !scene_.open_side(cluster_side::fresh)) error = pg_error{"55000", "there", {}, {}};
  if (!error) scene_.registered = order_.job;
  if (!error) error = adopt_it(found);
  const bool good = !error && (found == cluster_stored::flipped || found == cluster_stored::kept ||
                               found == cluster_stored::returned);
  if (!good) scene_.lost.reset();
  return good;
}

trouble cluster_runner::take(cluster_stored& found) {
  scene_.lost.reset();
  auto error = take_both(found);
  if (!error || !order_.resume || lost_ || error->sqlstate == "55006" || stopped_) return error;
  if (!adopt_without_other(found)) return error;
  log::warn("move", "{}: goes on without the servers of \"{}\": {}", order_.job, order_.to,
            error->message);
  taken_ = true;
  progress_.only_tried = false;
  return std::nullopt;
}

trouble cluster_runner::take_both(cluster_stored& found) {
  if (auto error = ask_where()) return error;
  if (!scene_.registered.empty() && scene_.registered != order_.job) {
    return pg_error{"55006", fmt::format("the move {} of database \"{}\" is under way",
                                         scene_.registered, order_.database), {}, {}};
  }
  if (auto error = lock()) return error;
  if (scene_.registered.empty() && order_.resume && !taken_) {   // it has been ended meanwhile
    return pg_error{"55006", fmt::format("the move {} is over already", order_.job), {}, {}};
  }
  runs_ = 0;
  if (auto error = adopt_it(found)) return error;
  taken_ = true;
  progress_.only_tried = false;
  return std::nullopt;
}

// Keeps two replicators from taking a job from each other again and again; that only one of them
// changes anything is hold_job()'s.
trouble cluster_runner::lock() {
  trouble missing;
  for (const auto of : {cluster_side::old, cluster_side::fresh}) {
    if (of == scene_.lost) continue;
    const auto& at = scene_.side(of).where.shards.front();
    const auto key = fmt::format("{}:{}/{}", at.host, at.port, at.database);
    const auto held = locks_.find(key);
    if (held != locks_.end() && held->second.query("SELECT 1").has_value()) continue;
    if (held != locks_.end()) locks_.erase(held);
    move_scene opener;
    opener.job = "lock";   // so that adopting the job does not end it
    opener.runner = order_.job;
    opener.stop = &quit_;
    opener.where = scene_.side(of).where;
    auto made = opener.open(0, usual_answer);
    if (!made) {
      if (!missing) missing = made.error();
      continue;   // the lock on the other side is kept all the same
    }
    const auto mine = one_value(*made, fmt::format(
        "SELECT pg_try_advisory_lock(20738, hashtext({}))", literal("cluster " + order_.job)));
    if (!mine) return mine.error();
    if (*mine != "t") {
      lost_ = taken_;
      return pg_error{"55006", "another replicator runs this move", {}, {}};
    }
    locks_.emplace(key, std::move(*made));
  }
  return missing;
}

// Under a new name, so that whatever this runner has sent before cannot happen any more.
trouble cluster_runner::adopt_it(cluster_stored& found) {
  forget_streams();
  if (auto error = lock()) return error;
  scene_.runner = fmt::format("{}.{}", runner_, ++takes_);
  if (auto error = scene_.open_all()) return error;
  const auto stored = adopt(scene_);
  if (!stored) return stored.error();
  found = stored->what;
  runs_ = std::max(runs_, stored->runs);
  return std::nullopt;
}

void cluster_runner::forget_streams() {
  flow_.reset();
  for (auto& side : scene_.sides) {
    for (auto& one : side.gets) one->links.clear();
  }
}

trouble cluster_runner::begin() {
  std::string text;
  if (auto error = ask("begin", &text)) return error;
  scene_.registered = order_.job;
  const auto got = snapshot::from_json<snapshot::move_answer>(text);
  if (!got) return got.error();
  if (got->epoch == 0) return pg_error{"XX000", "the names have no epoch", {}, {}};
  scene_.names = got->epoch;
  return std::nullopt;
}

trouble cluster_runner::record() { return record_cluster_job(scene_, runs_); }

// Called all the time while something is waited for.
trouble cluster_runner::watch() {
  if (flow_) {
    progress_.lag = flow_->behind();
    progress_.changes = flow_->changes();
    progress_.waited = flow_->waited();
  }
  tell();
  if (quit_) return pg_error{"57014", "the move was interrupted", {}, {}};
  return watch_slots();
}

// A slot that keeps too much log is given up before the disk of its server is full, or when the
// server has given it up itself. Looks now and then only.
trouble cluster_runner::watch_slots() {
  if (!flow_ || clock::now() - slots_seen_ < between_slot_looks) return std::nullopt;
  if (flow_->to() == cluster_side::old) return watch_back_slots();
  slots_seen_ = clock::now();
  auto& from = scene_.side(flow_->from());
  for (const auto& one : scene_.side(flow_->to()).gets) {
    for (std::size_t shard = 0; shard < from.links.size(); ++shard) {
      const auto slot = one->slot(static_cast<shard_number>(shard));
      if (at_ == step::prepare) continue;   // they are being made
      if (auto error = watch_slot(from.links[shard], from.label(shard), slot,
                                  one->where.manner.slot_limit)) {
        return error;
      }
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::replicator
