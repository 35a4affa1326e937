#pragma once
// A small model of PostgreSQL as far as commits are concerned: backends that work through their
// messages step by step, prepared transactions and decision rows that survive, everything else
// not. One transaction at a time.

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/commit/resolver.hpp"

namespace pgsled::commit::testing {

class dice {   // splitmix64: the same on every machine
 public:
  explicit dice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t roll() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(roll() % n); }
  bool chance(std::size_t of_thousand) { return below(1000) < of_thousand; }

 private:
  std::uint64_t state_;
};

// What a mistaken protocol would leave out.
struct mistakes {
  bool abort_row = false;        // answers "abort" without having written it
  bool termination = false;      // does not end the coordinator's backend
  bool rollback_tag = false;     // takes the tag ROLLBACK for a vote
  bool deadline = false;         // decides however late it is
  bool any() const { return abort_row || termination || rollback_tag || deadline; }
};

struct reply {
  std::string tag, value;
  pg_error error{"", "", "", ""};
};

enum class fate { open, prepared, committed, aborted };

struct server {
  struct backend {
    bool alive = true, client_gone = false, ending = false, failed = false, inserted = false;
    std::deque<std::string> inbox;
    std::deque<reply> outbox;
  };

  std::uint32_t shard = 0, pid = 1;
  std::int64_t clock_offset = 0;
  backend own;                              // the client's; `transaction` is its first
  fate transaction = fate::open;
  bool was_prepared = false, deferred_failure = false;
  std::int64_t commit_takes = 0;            // ms that the decision is in flight: a slow standby
  std::int64_t inserted_at = 0;
  std::string gid;                          // when prepared
  std::int64_t prepared_at = 0;
  std::map<std::string, found_decision> rows;
  std::map<std::string, std::int64_t> decided_at;
  bool reachable = true;

  void reply_error(std::string code, std::string text) {
    own.failed = transaction == fate::open;
    own.outbox.push_back({"", "", {std::move(code), std::move(text), "", ""}});
  }
  void end_backend() {
    own.alive = false;
    own.inserted = false;
    own.inbox.clear();
    if (transaction == fate::open) transaction = fate::aborted;
  }
  void restart() {
    end_backend();
    own.outbox.clear();
  }

  bool can_work(std::int64_t now) const {
    if (own.inserted && !own.ending && now < inserted_at + commit_takes) return false;
    return own.alive && (own.ending || !own.inbox.empty() || own.client_gone);
  }

  // One step of the backend; a message takes one, the decision two.
  void work(std::int64_t now, const mistakes& wrong) {
    // Ended while it waits for a standby: its commit is done, only nobody hears of it.
    const bool written = own.inserted && commit_takes > 10'000 && !deferred_failure;
    if (own.inbox.empty() || (own.ending && !written)) return end_backend();
    const std::string sql = own.inbox.front();
    const auto has = [&](std::string_view text) { return sql.find(text) != sql.npos; };
    const auto quoted = [&] {
      const auto from = sql.rfind(" '", sql.find(",") == sql.npos ? sql.npos : sql.find(","));
      const auto at = has("decide('") ? sql.find("decide('") + 8 : from + 2;
      return sql.substr(at, sql.find('\'', at) - at);
    };
    if (has("pgsled.decide(") && !own.inserted) {
      if (const auto error = insert(quoted(), now, wrong)) {
        own.inbox.pop_front();
        return reply_error(error->sqlstate, error->message);
      }
      own.inserted = true;
      inserted_at = now;
      return;   // COMMIT is the next step
    }
    own.inbox.pop_front();
    if (has("pgsled.decide(")) {
      own.inserted = false;
      if (deferred_failure) {
        transaction = fate::aborted;
        return own.outbox.push_back({"", "", {"23503", "a deferred constraint", "", ""}});
      }
      const std::string key = quoted();
      rows[key] = {key, outcome::commit, participants(sql), 0};
      decided_at[key] = now;
      transaction = fate::committed;
      if (own.ending) return end_backend();
      own.outbox.push_back({"COMMIT", "", {"", "", "", ""}});
    } else if (has("open_decision(")) {
      if (own.failed) return reply_error("25P02", "failed");
      own.outbox.push_back({"SELECT 1", mark(now), {"", "", "", ""}});
    } else if (has("PREPARE TRANSACTION")) {
      if (own.failed) {   // in one message with other statements it is an error, alone the tag
        transaction = fate::aborted;
        return own.outbox.push_back({"ROLLBACK", "", {"", "", "", ""}});
      }
      gid = sql.substr(sql.rfind(" '") + 2);
      gid.pop_back();
      transaction = fate::prepared;
      was_prepared = true;
      prepared_at = now;
      own.outbox.push_back({"PREPARE TRANSACTION", "", {"", "", "", ""}});
    } else if (has(" PREPARED ")) {
      const auto error = finish(quoted(), has("COMMIT"));
      if (error) return reply_error(error->sqlstate, error->message);
      own.outbox.push_back({has("COMMIT") ? "COMMIT PREPARED" : "ROLLBACK PREPARED", "",
                            {"", "", "", ""}});
    } else {
      const bool commit = sql == "COMMIT" && !own.failed;
      if (transaction == fate::open) transaction = commit ? fate::committed : fate::aborted;
      own.outbox.push_back({commit ? "COMMIT" : "ROLLBACK", "", {"", "", "", ""}});
    }
  }

  // The resolver's statements, each at once.
  std::optional<pg_error> finish(const std::string& which, bool commit) {
    if (transaction != fate::prepared || which != gid) return pg_error{"42704", "no such", "", ""};
    transaction = commit ? fate::committed : fate::aborted;
    return std::nullopt;
  }
  result<std::string> settle(const std::string& key, std::int64_t now, const mistakes& wrong) {
    if (const auto found = rows.find(key); found != rows.end()) {
      return found->second.what == outcome::commit ? "commit" : "abort";
    }
    if (wrong.abort_row) return "abort";
    if (own.inserted) return failure("55P03", "waits for the commit in flight");
    rows[key] = {key, outcome::abort, {}, 0};
    decided_at[key] = now;
    return "abort";
  }

 private:
  std::string mark(std::int64_t now) const {
    return fmt::format("{:x}_{:x}_{:x}", pid, 77, now + clock_offset + 5000);
  }
  std::optional<pg_error> insert(const std::string& key, std::int64_t now, const mistakes& wrong) {
    if (own.failed || transaction != fate::open) return pg_error{"25P02", "failed", "", ""};
    const auto from = key.find('_', key.find('_') + 1) + 1;
    const auto deadline = std::stoll(key.substr(from), nullptr, 16);
    if (!wrong.deadline && now + clock_offset > deadline) return pg_error{"40000", "late", "", ""};
    if (rows.contains(key)) return pg_error{"23505", "there is one", "", ""};
    return std::nullopt;
  }
  static std::vector<std::uint32_t> participants(const std::string& sql) {
    std::vector<std::uint32_t> made;
    for (std::size_t at = sql.find('{'); sql[at] != '}';) {
      made.push_back(static_cast<std::uint32_t>(std::stoul(sql.substr(++at))));
      at = sql.find_first_of(",}", at);
    }
    return made;
  }
};

}  // namespace pgsled::commit::testing
