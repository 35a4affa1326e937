#include "services/router/plan_desk.hpp"

#include <algorithm>

namespace pgsled::router {

namespace {

constexpr std::int64_t refusal_age = 1000;   // ms: an older catalog's refusal is looked at again

// FNV-1a over texts with their ends.
class content_hash {
 public:
  void add(std::string_view text) {
    for (const char c : text) step(static_cast<std::uint8_t>(c));
    step(0);
  }
  void mark(std::uint8_t what) { step(what); }
  std::uint64_t value() const { return hash_ == 0 ? 1 : hash_; }

 private:
  void step(std::uint8_t byte) { hash_ = (hash_ ^ byte) * 1099511628211u; }
  std::uint64_t hash_ = 14695981039346656037u;
};

}  // namespace

void plan_desk::configure(const std::vector<definition>& databases, std::int64_t now) {
  std::map<std::string, view> kept;
  for (const definition& one : databases) {
    view& to = kept[one.name];
    if (const auto found = views_.find(one.name); found != views_.end()) {
      to = std::move(found->second);
    }
    to.of_other_tables = to.read_at >= 0 && to.database.sharded != one.tables;
    to.defined = one;
    to.database.name = one.name;
    to.database.shards = one.shards;
    to.database.sharded = one.tables;
    to.database.roles = one.roles;
  }
  views_ = std::move(kept);
  for (auto& [name, one] : views_) load(one, now);
}

void plan_desk::forget(const std::string& database) { views_.erase(database); }

void plan_desk::refuse(const std::string& database, const std::string& reason) {
  const auto found = views_.find(database);
  // Those that wait hear it at the next look.
  if (found != views_.end()) found->second.refused = reason;
}

void plan_desk::map_known(const std::string& database, bool known, const std::string& why_not,
                          std::int64_t now) {
  const auto found = views_.find(database);
  if (found == views_.end()) return;
  found->second.map_problem = why_not;
  if (std::exchange(found->second.map_known, known) == known || !known) return;
  look_again(database, now, false);
  if (std::exchange(found->second.load_again, false)) load(found->second, now);
}

void plan_desk::moving(const std::string& database, const std::string& job) {
  if (job.empty()) {
    jobs_.erase(database);
  } else {
    jobs_[database] = job;
  }
  const auto found = views_.find(database);
  if (found != views_.end()) found->second.job = job;
}

bool plan_desk::refused_for_job(const waiter& who, const std::string& job,
                                const plan::plan& made) {
  if (!made.changes_catalog || job.empty()) return false;
  fail(who, "55006", "rows of database \"" + who.asked.database + "\" are being moved by " + job,
       "Change tables when it is over, or abort it: pgsled reshard status, reshard abort.");
  return true;
}

plan_desk::outcome plan_desk::wait_for_map(const view& one, const waiter& who, bool last_try) {
  if (!last_try) return outcome::wait;
  fail(who, "57P03", "the shard map of database \"" + one.defined.name + "\" is not known yet" +
                         (one.map_problem.empty() ? "" : ": " + one.map_problem));
  return outcome::done;
}

void plan_desk::fail(const waiter& who, std::string sqlstate, std::string message,
                     std::string hint) {
  ++counts_.failed;
  calls_.error(who.from, who.request,
               {std::move(sqlstate), std::move(message), std::move(hint), {}});
}

void plan_desk::request(const std::string& from, const bus::envelope& got, std::int64_t now) {
  ++counts_.requests;
  waiter who;
  who.from = from;
  who.request = got.header.request;
  who.epoch = got.header.epoch;
  who.came = now;
  const std::int64_t patience = got.header.deadline_ms == 0
                                    ? longest_wait
                                    : std::min<std::int64_t>(got.header.deadline_ms, longest_wait);
  who.until = now + patience * 9 / 10;   // early enough for the asker to hear the reason
  auto asked = plan::decode_request(got.payload);
  if (!asked) return fail(who, "08P01", "malformed plan request: " + asked.error());
  who.asked = std::move(*asked);
  who.bytes = got.payload.size();
  who.for_name = !calls_.named(who.asked.database);
  if (take(who, now, false) == outcome::done) return;
  if (waiting_.size() >= max_waiting || waiting_bytes_ + who.bytes > max_waiting_bytes) {
    return fail(who, "53400", "too many plans wait for the catalog of database \"" +
                                  who.asked.database + "\"");
  }
  waiting_bytes_ += who.bytes;
  const auto found = views_.find(who.asked.database);
  const bool for_catalog = !who.for_name && found != views_.end() && found->second.map_known;
  waiting_.push_back(std::move(who));
  if (for_catalog) load(found->second, now);
}

plan_desk::outcome plan_desk::take(const waiter& who, std::int64_t now, bool last_try) {
  if (!calls_.named(who.asked.database)) {
    if (!last_try) return outcome::wait;
    fail(who, "57P03", "which servers are database \"" + who.asked.database +
                           "\" is not known yet");
    return outcome::done;
  }
  const auto found = views_.find(who.asked.database);
  if (found != views_.end()) return attempt(found->second, who, now, last_try);
  answer_alone(who);
  return outcome::done;
}

// Not sharded (frontends ask about databases of their snapshot only): with dispatch = "always", and
// while all of it moves to other servers, its statements come by here, too, and there is one place
// they can go.
void plan_desk::answer_alone(const waiter& who) {
  const auto job = jobs_.find(who.asked.database);
  if (job != jobs_.end()) {
    plan::database_view alone;
    alone.name = who.asked.database;
    if (refused_for_job(who, job->second, plan::make_plan(who.asked, alone, 0).plan)) return;
  }
  plan::answer only;
  const std::uint64_t sent = calls_.epoch(who.from);
  only.epoch = sent == 0 ? who.epoch : sent;
  only.plan.destination = plan::destination::any_shard;
  ++counts_.answered;
  calls_.answer(who.from, who.request, only);
}

// Whether any shard may answer depends on what the statement names: a view or a function may read
// what is on all of them.
bool plan_desk::needs_catalog(const view& one, const plan::request& asked, const plan::plan& made) {
  if (one.defined.shards <= 1 || made.destination != plan::destination::any_shard) return false;
  plan::request blind = asked;
  blind.unsettled = {"*"};
  return plan::make_plan(blind, one.database, 0).plan.destination == plan::destination::refused;
}

plan_desk::outcome plan_desk::attempt(view& one, const waiter& who, std::int64_t now,
                                      bool last_try) {
  if (!one.refused.empty()) {
    fail(who, "XX000", one.refused);
    return outcome::done;
  }
  if (!one.map_known && one.defined.shards == 1) return wait_for_map(one, who, last_try);
  const bool read_since = one.read_at >= who.came;
  const bool ddl_near = one.ddl_at >= 0 && one.ddl_at + ddl_window >= who.came;
  if (one.database.catalog.loaded && ddl_near && !read_since && !last_try) return outcome::wait;
  if (one.database.catalog.loaded && ddl_near && !read_since) {
    fail(who, "57P03", "the catalog of database \"" + one.defined.name +
                           "\" may have changed and could not be read again: " + one.problem);
    return outcome::done;
  }
  const std::uint64_t sent = calls_.epoch(who.from);
  const plan::answer made = plan::make_plan(who.asked, one.database, sent == 0 ? who.epoch : sent);
  if (refused_for_job(who, one.job, made.plan)) return outcome::done;
  const bool refused = made.plan.destination == plan::destination::refused;
  const bool unknown = !one.database.catalog.loaded || one.of_other_tables;
  if (unknown && (refused || needs_catalog(one, who.asked, made.plan))) {
    if (!last_try) return outcome::wait;
    fail(who, "57P03", "the catalog of database \"" + one.defined.name + "\" is not known yet" +
                           (one.problem.empty() ? "" : ": " + one.problem));
    return outcome::done;
  }
  if (refused && !read_since && !last_try && now - one.read_at > refusal_age) return outcome::wait;
  // A table that the catalog does not know yet may be sharded, by its column or as a part of another
  // one: its rows must not go to every shard.
  const bool copied_everywhere = made.plan.destination == plan::destination::copy_in &&
                                 made.plan.copy.key.empty() && one.defined.shards > 1;
  if ((!made.plan.rows.table.empty() || copied_everywhere) && !read_since) {
    if (!last_try) return outcome::wait;
    fail(who, "57P03", "whether the table is sharded cannot be said: the catalog of database \"" +
                           one.defined.name + "\" could not be read: " + one.problem);
    return outcome::done;
  }
  const bool placed = made.plan.destination == plan::destination::one_shard ||
                      made.plan.destination == plan::destination::copy_in ||
                      made.plan.destination == plan::destination::copy_out;
  if (!one.map_known && placed) {
    return wait_for_map(one, who, last_try);
  }
  give(one, who, made, now);
  return outcome::done;
}

void plan_desk::give(view& one, const waiter& who, const plan::answer& made, std::int64_t now) {
  ++(made.plan.destination == plan::destination::refused ? counts_.refused : counts_.answered);
  calls_.answer(who.from, who.request, made);
  if (made.plan.changes_catalog) catalog_changed(one.defined.name, now);
}

void plan_desk::catalog_changed(const std::string& database, std::int64_t now) {
  const auto found = views_.find(database);
  if (found == views_.end()) return;
  view& one = found->second;
  one.ddl_at = now;
  // Soon, for what is done by then, and once more for a transaction that takes its time.
  one.refresh_at = {now + 200, now + 2000};
}

void plan_desk::committed(const std::string& database, std::int64_t now) {
  const auto found = views_.find(database);
  if (found == views_.end()) return;
  ++found->second.commits;
  catalog_changed(database, now);
}

void plan_desk::load(view& one, std::int64_t) {
  if (one.loading) {
    one.load_again = true;
    return;
  }
  one.loading = true;
  ++counts_.loads;
  calls_.load(one.defined.name);
}

bool plan_desk::loaded(const std::string& database, result<plan::catalog> got, std::int64_t began,
                       std::int64_t now) {
  const auto found = views_.find(database);
  if (found == views_.end()) return false;
  view& one = found->second;
  one.loading = false;
  const std::uint64_t before = version(database);
  if (got) {
    one.problem.clear();
    one.read_at = began;
    one.of_other_tables = false;
    one.database.catalog = std::move(*got);
  } else {
    one.problem = got.error().message;
    one.refresh_at.push_back(now + 1000);
  }
  look_again(database, now, false);
  if (std::exchange(one.load_again, false)) load(one, now);
  return version(database) != before;
}

void plan_desk::look_again(const std::string& database, std::int64_t now, bool last_try) {
  view& one = views_.at(database);
  std::vector<waiter> rest;
  auto all = std::exchange(waiting_, {});
  for (waiter& who : all) {
    if (who.asked.database != database || who.for_name ||
        take(who, now, last_try || now >= who.until) == outcome::wait) {
      rest.push_back(std::move(who));
    } else {
      waiting_bytes_ -= who.bytes;
    }
  }
  for (waiter& who : waiting_) rest.push_back(std::move(who));
  waiting_ = std::move(rest);
  const bool some = std::any_of(waiting_.begin(), waiting_.end(), [&](const waiter& who) {
    return who.asked.database == database;
  });
  if (some && one.map_known) one.load_again = one.load_again || one.problem.empty();
}

void plan_desk::tick(std::int64_t now) {
  for (auto& [name, one] : views_) {
    const auto due = [&](std::int64_t when) { return when <= now; };
    if (std::erase_if(one.refresh_at, due) != 0 ||
        (one.read_at >= 0 && now - one.read_at > refresh_every && !one.loading)) {
      load(one, now);
    }
  }
  auto all = std::exchange(waiting_, {});
  for (waiter& who : all) {
    const auto found = views_.find(who.asked.database);
    if (who.for_name) {
      who.for_name = !calls_.named(who.asked.database);
      if (take(who, now, now >= who.until) == outcome::done) {
        waiting_bytes_ -= who.bytes;
        continue;
      }
      if (!who.for_name && found != views_.end() && found->second.map_known) {
        load(found->second, now);
      }
      waiting_.push_back(std::move(who));
    } else if (found == views_.end()) {
      waiting_bytes_ -= who.bytes;
      fail(who, "3D000", "database \"" + who.asked.database + "\" does not exist any more");
    } else if (now >= who.until) {
      waiting_bytes_ -= who.bytes;
      take(who, now, true);
    } else {
      waiting_.push_back(std::move(who));
    }
  }
}

std::uint64_t plan_desk::version(const std::string& database) const {
  const auto found = views_.find(database);
  if (found == views_.end() || !found->second.database.catalog.loaded) return 0;
  const view& one = found->second;
  content_hash hash;
  hash.mark(static_cast<std::uint8_t>(one.defined.shards));
  if (one.commits > 0) hash.add(std::to_string(one.commits));
  for (const plan::sharded_table& table : one.defined.tables) {
    for (const auto* text : {&table.schema, &table.name, &table.column, &table.data_type}) {
      hash.add(*text);
    }
    hash.mark(static_cast<std::uint8_t>(table.hasher));
    hash.add(std::to_string(table.mapping));
  }
  for (const auto* named : {&one.defined.roles, &one.database.catalog.paths}) {
    hash.mark(3);
    for (const auto& [name, value] : *named) {
      hash.add(name);
      hash.add(value);
    }
  }
  hash.mark(6);
  for (const auto& followed : one.database.catalog.followed) {
    for (const auto* text : {&followed.schema, &followed.table, &followed.column,
                             &followed.foreign_key, &followed.of}) {
      hash.add(*text);
    }
  }
  hash.mark(7);
  for (const auto& name : one.database.catalog.hides_sharded) hash.add(name);
  hash.mark(4);
  for (const auto& name : one.database.catalog.namesakes) hash.add(name);
  hash.mark(1);
  for (const auto& name : one.database.catalog.safe_functions) hash.add(name);
  hash.mark(5);
  for (const auto& name : one.database.catalog.immutable_functions) hash.add(name);
  for (const auto& table : one.database.catalog.tables) {
    hash.mark(2);
    hash.add(table.schema);
    hash.add(table.name);
    for (const auto& column : table.columns) hash.add(column);
    hash.mark(table.ordered ? 1 : 0);
    for (const auto& [column, how] : table.differs) {
      hash.add(column);
      hash.add(how);
    }
    for (const auto& type : table.types) {
      hash.add(type.name);
      hash.add(std::to_string(type.limit));
      hash.mark(type.by_bytes ? 1 : 0);
    }
  }
  return hash.value();
}

}  // namespace pgsled::router
