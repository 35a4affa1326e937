// The coordinator and two resolvers over model shards, under schedules drawn from seeds: crashes
// and sleeps of the process that commits, cut connections, messages that come late or never,
// servers that restart or cannot be reached, resolvers that die between two steps.

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "common/commit/coordinator.hpp"
#include "tests/unit/commit/model.hpp"

namespace pgsled::commit::testing {
namespace {

constexpr std::int64_t faults_end = 40'000, all_end = 400'000;

class schedule {
 public:
  schedule(std::uint64_t seed, mistakes wrong) : dice_(seed), wrong_(wrong) {
    const std::size_t count = 2 + dice_.below(3);
    std::vector<participant> all;
    for (std::uint32_t i = 0; i < count; ++i) {
      server& one = servers_.emplace_back();
      one.shard = i;
      one.clock_offset = static_cast<std::int64_t>(dice_.below(3'600'000));
      one.own.failed = dice_.chance(60);
      one.deferred_failure = dice_.chance(50);
      if (dice_.chance(150)) one.commit_takes = static_cast<std::int64_t>(dice_.below(20'000));
      all.push_back({i, !dice_.chance(150), {}});
    }
    if (dice_.chance(200)) all[dice_.below(count)].unpreparable = "it has used temporary objects";
    who_ = *choose(all);
    machine_.emplace(who_, "app", std::string(32, 'a'));
    connections_.resize(count);
  }

  // Empty when nothing was broken.
  std::string run() {
    obey(machine_->begin(now_));
    for (int steps = 0; now_ < all_end && steps < 20'000; ++steps) one_step();
    return verdict();
  }
  const std::optional<action>& answer() const { return answer_; }

 private:
  struct connection {
    std::deque<std::string> to_server;
    std::deque<reply> to_client;
    bool cut = false, told = false;
  };
  struct resolver {
    std::int64_t at = 0;                       // of the next scan
    int reading = -1;                          // step of the scan; -1: none
    std::vector<shard_findings> found;
    std::vector<resolution> todo;
  };

  bool faulty() const { return now_ < faults_end; }
  bool awake() const { return alive_ && now_ >= awake_from_; }

  void one_step() {
    std::vector<std::function<void()>> can;
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      server& s = servers_[i];
      connection& c = connections_[i];
      if (!c.to_server.empty()) {
        can.emplace_back([&] {
          if (s.own.alive) s.own.inbox.push_back(c.to_server.front());
          c.to_server.pop_front();
        });
      }
      if (s.can_work(now_)) can.emplace_back([&] { s.work(now_, wrong_); });
      if (!s.own.outbox.empty()) {
        can.emplace_back([&] {
          if (!c.cut) c.to_client.push_back(s.own.outbox.front());
          s.own.outbox.pop_front();
        });
      }
      if (!s.own.alive && s.own.outbox.empty() && !c.cut) can.emplace_back([&] { c.cut = true; });
      if (awake() && !c.to_client.empty()) can.emplace_back([&, i] { deliver(i); });
      if (awake() && c.cut && c.to_client.empty() && !c.told) {
        can.emplace_back([&, i] {
          c.told = true;
          obey(machine_->lost(static_cast<std::uint32_t>(i), "cut", now_));
        });
      }
    }
    // Who wakes up may hear of its messages before it looks at the clock.
    if (awake() && now_ >= machine_->next_tick()) {
      can.emplace_back([&] { obey(machine_->tick(now_)); });
    }
    for (resolver& one : resolvers_) {
      if (one.reading >= 0 || !one.todo.empty()) {
        can.emplace_back([&] { resolve_step(one); });
      } else if (now_ >= one.at) {
        can.emplace_back([&] {
          one.reading = 0;
          one.found.assign(servers_.size(), {});
          one.at = now_ + 2000;
        });
      }
    }
    if (can.empty() || dice_.chance(60)) {
      now_ += static_cast<std::int64_t>(1 + dice_.below(can.empty() ? 2000 : 700));
    } else {
      can[dice_.below(can.size())]();
    }
    if (faulty() && dice_.chance(12)) fault();
    if (!faulty()) {
      for (server& one : servers_) one.reachable = true;
    }
  }

  void fault() {
    const std::size_t shard = dice_.below(servers_.size());
    switch (dice_.below(7)) {
      case 0: crash(dice_.chance(700)); break;
      case 1: awake_from_ = now_ + static_cast<std::int64_t>(dice_.below(8'000)); break;
      case 2: awake_from_ = now_ + static_cast<std::int64_t>(dice_.below(300'000)); break;
      case 3: cut(shard); break;
      case 4: servers_[shard].restart(); break;
      case 5: servers_[shard].reachable = !servers_[shard].reachable; break;
      case 6: {
        resolver& one = resolvers_[dice_.below(2)];
        one.reading = -1;
        one.todo.clear();
        break;
      }
    }
  }

  void cut(std::size_t shard) {
    connection& c = connections_[shard];
    c.cut = true;
    while (!c.to_server.empty() && dice_.chance(500)) c.to_server.pop_back();
    c.to_client.clear();
    servers_[shard].own.client_gone = true;
  }

  // Without a word to the servers when its machine has lost power.
  void crash(bool noticed) {
    alive_ = false;
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      if (noticed) cut(i);
    }
  }

  void deliver(std::size_t shard) {
    reply got = connections_[shard].to_client.front();
    connections_[shard].to_client.pop_front();
    const auto number = static_cast<std::uint32_t>(shard);
    if (!got.error.sqlstate.empty()) return obey(machine_->failed(number, got.error, now_));
    if (wrong_.rollback_tag && got.tag == "ROLLBACK" && !answer_) got.tag = "PREPARE TRANSACTION";
    obey(machine_->completed(number, got.tag, got.value, now_));
  }

  void obey(const std::vector<action>& actions) {
    for (const action& one : actions) {
      switch (one.what) {
        case action::kind::send: connections_[one.shard].to_server.push_back(one.sql); break;
        case action::kind::answer:
          if (answer_) twice_ = true;
          answer_ = one;
          break;
        case action::kind::release: break;
        case action::kind::drop: cut(one.shard); break;
      }
    }
  }

  // A scan reads one thing of one shard at a step: all that is prepared, then all decisions.
  void resolve_step(resolver& one) {
    const int count = static_cast<int>(servers_.size());
    if (one.reading >= 0) {
      const auto shard = static_cast<std::size_t>(one.reading % count);
      const bool rows = one.reading >= count;
      server& s = servers_[shard];
      shard_findings& to = one.found[shard];
      if (rows) {
        to.reached = s.reachable;
        for (auto [key, row] : s.rows) {
          row.age = now_ - s.decided_at[key];
          if (s.reachable) to.decisions.push_back(row);
        }
      } else if (s.reachable) {
        to.now = now_ + s.clock_offset;
      }
      if (!rows && s.reachable && s.transaction == fate::prepared) {
        to.prepared.push_back({s.gid, "owner", now_ - s.prepared_at, true});
      }
      if (!s.reachable) to = {};
      if (++one.reading == 2 * count) {
        one.reading = -1;
        one.todo = resolve("app", one.found, bounds_);
      }
      return;
    }
    const auto next = one.todo.front().next();
    if (!next) {
      one.todo.erase(one.todo.begin());
      return;
    }
    server& s = servers_[next->shard];
    resolution& of = one.todo.front();
    if (!s.reachable) return of.failed({"08006", "not reachable", "", ""});
    switch (next->what) {
      case step::kind::end_backend:
        if (!wrong_.termination && s.own.alive && s.transaction == fate::open) s.own.ending = true;
        return of.succeeded({});
      case step::kind::settle: {
        const auto got = s.settle(next->key, now_, wrong_);
        return got ? of.succeeded(*got) : of.failed(got.error());
      }
      case step::kind::finish: {
        const auto error = s.finish(next->gid, next->commit);
        return error ? of.failed(*error) : of.succeeded({});
      }
      case step::kind::forget:
        if (now_ - s.decided_at[next->key] > bounds_.keep_rows) s.rows.erase(next->key);
        return of.succeeded({});
    }
  }

  std::string verdict() const {
    std::size_t committed = 0, writers = 0, prepared = 0;
    bool resolved = false;
    const auto look = [&](std::uint32_t shard) {
      const server& s = servers_[shard];
      ++writers;
      committed += s.transaction == fate::committed ? 1U : 0U;
      prepared += s.transaction == fate::prepared ? 1U : 0U;
      resolved = resolved || s.was_prepared;
    };
    for (const std::uint32_t shard : who_.prepared) look(shard);
    if (who_.coordinator) look(*who_.coordinator);
    if (prepared != 0) return "left prepared";
    if (twice_) return "answered twice";
    if (committed != 0 && committed != writers) return "half committed";
    if (resolved && who_.coordinator &&
        servers_[*who_.coordinator].transaction == fate::open) {
      return "its coordinator left open";
    }
    if (alive_ && now_ >= awake_from_ && !answer_) return "not answered";
    if (!answer_) return {};
    const std::string& code = answer_->error.sqlstate;
    if (code.empty() && committed != writers) return "an answered COMMIT taken back";
    if (!code.empty() && code != "08007" && committed != 0) return "an answered error committed";
    return {};
  }

  dice dice_;
  mistakes wrong_;
  resolver_limits bounds_{6'000, 60'000, 90'000};
  std::vector<server> servers_;
  std::vector<connection> connections_;
  resolver resolvers_[2];
  choice who_;
  std::optional<coordinator> machine_;
  std::optional<action> answer_;
  std::int64_t now_ = 0, awake_from_ = 0;
  bool alive_ = true, twice_ = false;
};

struct tally {
  std::map<std::string, int> broken;
  int unsafe() {
    return broken["half committed"] + broken["an answered COMMIT taken back"] +
           broken["an answered error committed"];
  }
  int committed = 0, refused = 0, unknown = 0, silent = 0, warned = 0;
};

// Until `enough` has been seen, if that is given.
tally run(std::uint64_t seeds, mistakes wrong = {}, bool (*enough)(tally&) = nullptr) {
  tally made;
  for (std::uint64_t seed = 1; seed <= seeds && !(enough && enough(made)); ++seed) {
    schedule one(seed, wrong);
    if (const std::string why = one.run(); !why.empty()) {
      ++made.broken[why];
      if (!wrong.any()) ADD_FAILURE() << "seed " << seed << ": " << why;
    }
    if (!one.answer()) {
      ++made.silent;
    } else if (one.answer()->error.sqlstate.empty()) {
      ++made.committed;
      made.warned += one.answer()->warning.empty() ? 0 : 1;
    } else {
      ++(one.answer()->error.sqlstate == "08007" ? made.unknown : made.refused);
    }
  }
  return made;
}

TEST(Simulation, AllOrNothingUnderAnySchedule) {
  const tally made = run(6000);
  EXPECT_TRUE(made.broken.empty());
  // The schedules go everywhere.
  EXPECT_GT(made.committed, 500);
  EXPECT_GT(made.refused, 500);
  EXPECT_GT(made.unknown, 10);
  EXPECT_GT(made.silent, 100);
  EXPECT_GT(made.warned, 10);
}

bool unsafe(tally& made) { return made.unsafe() > 0; }

// Each of these is a protocol with one part left out; the schedules have to find what it is for.
TEST(Simulation, FindsTheMissingAbortRow) {
  mistakes wrong;
  wrong.abort_row = true;
  EXPECT_GT(run(6000, wrong, unsafe).unsafe(), 0);
}

TEST(Simulation, FindsTheMissingTermination) {
  mistakes wrong;
  wrong.termination = true;
  const auto left_open = [](tally& made) { return made.broken["its coordinator left open"] > 0; };
  tally made = run(6000, wrong, left_open);
  EXPECT_TRUE(left_open(made));
}

TEST(Simulation, FindsARollbackTakenForAVote) {
  mistakes wrong;
  wrong.rollback_tag = true;
  EXPECT_GT(run(6000, wrong, unsafe).unsafe(), 0);
}

TEST(Simulation, FindsTheMissingDeadlineOfOneThatCouldNotBeEnded) {
  mistakes wrong;
  wrong.termination = true;
  wrong.deadline = true;
  EXPECT_GT(run(6000, wrong, unsafe).unsafe(), 0);
}

}  // namespace
}  // namespace pgsled::commit::testing
