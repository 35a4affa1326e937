#pragma once
// move_desk: the router's side of moving buckets between shards, and of moving all of a database to
// the servers of another (docs/formats/envelope.md). Registers the job on the shards, raises the
// fence, says when it holds, and lifts it. Pure: what must be done on shards, told to members and
// answered is the driver's, through the callbacks.
// Times are milliseconds of a steady clock. Thread rule: one thread.
//
// A fence: none → setting (on the shards) → announced (in the snapshots) → holding → lifting
// → none.
// Only under a fence that stands on every shard can the job change the map; lifting it takes it
// from the shards first, which waits for a change in flight, and reads the map again. So whatever
// happened, members are told the map that holds, and the fence falls for them together with that.
// With another database the same: for "the map" read "which servers have the name".

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::router {

// What is done on the shards, by a helper thread.
struct move_work {
  enum class kind {
    begin,      // register `job` on every shard, or nowhere
    set_fence,  // `fence` of `job` on every shard, or nowhere
    end,        // nothing is registered any more
  };
  kind what = kind::begin;
  std::string database, job, fence;
  std::string other = {};   // a move of all of `database` to the servers of this one; empty: none
  bool lost = false;        // end: what is not reached of `other` is left out
};

class move_desk {
 public:
  static constexpr std::int64_t longest_fence = 30'000;   // ms; then it is lifted by itself
  static constexpr std::int64_t longest_drain = 20'000;   // ms, whatever the job asks for
  static constexpr std::int64_t telling_limit = 10'000;   // ms, for all to acknowledge
  static constexpr std::size_t max_buckets = 65'536;

  struct asker {
    std::string from;
    std::uint64_t request = 0;
  };
  struct callbacks {
    std::function<void(const asker&, std::uint64_t epoch, const std::string& fence)> answer;
    std::function<void(const asker&, const pg_error&)> error;
    std::function<void(const move_work&)> work;              // then worked()
    // Fence off, map (with `other`: names) read: then settled().
    std::function<void(const std::string& database, const std::string& other)> settle;
    // What the snapshots say from now on. An empty fence is none; `whole`: it is for everything.
    struct word {
      std::string database, other, job, fence;
      std::vector<std::uint32_t> buckets;
      bool whole = false;
    };
    std::function<void(const word&)> tell;
    std::function<bool()> told;                              // all have acknowledged the newest
    // Every worker and pooler has acknowledged it, and has nothing of before it any more.
    std::function<bool(const std::string& fence)> drained;
    // Who is not there yet, for errors: of the newest snapshot, or of a fence.
    std::function<std::vector<std::string>(const std::string& fence)> late;
  };
  explicit move_desk(callbacks calls) : calls_(std::move(calls)) {}

  // Requests of a replicator. Each is answered once, or its error is. `other`: the move is one of
  // all of `database` to that; its fence, and its alone, is `whole`.
  void begin(const asker&, const std::string& database, const std::string& job, std::int64_t now,
             const std::string& other = {});
  void fence(const asker&, const std::string& database, const std::string& job,
             std::vector<std::uint32_t> buckets, std::int64_t wait_ms, std::int64_t now,
             bool whole = false);
  // `flipped` and `lift` alike: the fence goes, and what map holds is found out. The answer comes
  // when all members use it.
  void lift(const asker&, const std::string& database, const std::string& job, std::int64_t now);
  void end(const asker&, const std::string& database, const std::string& job, std::int64_t now,
           bool lost = false);

  void worked(const move_work&, const result<bool>&, std::int64_t now);
  // The map was read: `known` with its epoch and the job registered on the shards.
  void settled(const std::string& database, bool known, std::uint64_t epoch,
               const std::string& job, std::int64_t now, const std::string& other = {});
  void gone(const std::string& instance, std::int64_t now);   // its fences are lifted
  void tick(std::int64_t now);

  // The fence that stands on the shards of a database and is to stay; empty: none.
  std::string fence_of(const std::string& database) const;
  std::vector<std::string> fences() const;   // of all databases
  // The job registered for a database; empty: none. And the other database of that, if any.
  std::string job_of(const std::string& database) const;
  std::string other_of(const std::string& database) const;
  bool in_pair(const std::string& database) const;   // of such a move, as either of the two

 private:
  enum class phase { none, setting, announced, holding, lifting };
  struct move {
    std::string job, other;
    phase fence_is = phase::none;
    std::string fence;
    std::vector<std::uint32_t> buckets;
    asker waits_for_fence;               // its answer is owed while setting and announced
    std::string holder;                  // who asked for the fence
    std::int64_t until = 0;              // of the phase
    std::int64_t retry_at = 0;           // lifting
    bool settling = false, give_up = false;
    std::uint64_t epoch = 0;             // of the map, as read last
    pg_error why{"", "", "", ""};        // of a fence that did not come about
    bool working = false;                // begin or end is under way
    std::vector<asker> lifts;            // who waits for the end of the lifting
  };
  struct telling {                       // answers that wait until all have acknowledged
    asker who;
    std::uint64_t epoch = 0;
    std::int64_t until = 0;
  };
  move* find(const asker&, const std::string& database, const std::string& job);
  void start_lifting(const std::string& database, move&, std::int64_t now);
  void tell(const std::string& database, const move&);
  bool taken(const asker&, const std::string& database, const std::string& but_by);
  void refuse(const asker&, std::string sqlstate, std::string message, std::string hint = {});

  callbacks calls_;
  std::map<std::string, move> moves_;    // by database
  std::vector<telling> telling_;
  std::map<std::string, asker> waiting_; // begin and end, by database
  std::uint64_t fences_ = 0;
};

}  // namespace pgsled::router
