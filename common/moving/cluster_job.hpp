#pragma once
// cluster_job: the order of a move of a whole database to the servers of another one, of the way
// back, and what follows from a failure. A pure machine: the driver asks what to do next, does it,
// and says how it went.
//
//   take → check → begin → record → prepare → copy → catch_up → compare → ready
//        → back → fence → verify → flip → flipped → reverse
//        reverse, when the operator wants the old servers again:
//                 catch_up → compare → fence → verify → flip → flipped → finish → end
//        reverse, when he wants to keep the new ones:                    finish → end
//
// Before the first flip everything can be undone: lift (when a fence may be there) → undo → end.
// After it nothing is undone: what fails is tried again, and a way back that fails ends in reverse.
// A flip whose outcome is not known is looked at first (settle): as long as it may have happened,
// nobody may be let through by a lift. A job that somebody else left behind is undone and begun
// again, or gone on with after its flip.
//
// Nothing is flipped but straight after a verify that found no difference under the same fence.
// Thread rule: its owner's.

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::moving {

enum class cluster_step : std::uint8_t {
  take,      // be the only runner of the job; answered with what is stored of it
  check,     // pre-flight
  begin,     // register it with the router
  record,    // store it on all shards of both
  prepare,   // identities, publications, slots
  copy,      // under the snapshots of the slots
  catch_up,  // apply the streams until little is left
  compare,   // both sides at one position, while the clients go on
  ready,     // follow, until told to cut over
  back,      // what the way back needs: slots on the new servers, origins on the old
  fence,     // hold all clients back, and apply what they had done
  verify,    // compare what has changed since; sequences
  flip,      // the name goes to the other servers: the point of no return
  flipped,   // all frontends use them
  reverse,   // follow from the new servers to the old, until told what next
  finish,    // slots, publications, identities, origins on both
  settle,    // what became of the flip
  lift,      // give the fence up
  undo,      // leave nothing behind
  end,       // the router forgets the job
};
std::string_view name_of(cluster_step);

// Of a job that is registered, by what the servers themselves say of their names.
enum class cluster_stored {
  nothing,
  moving,      // the name is where it was
  given_up,    // so it is, and its runner has begun to undo, or had not stored it yet
  flipped,     // the new servers have it
  returned,    // the old ones have it again
  kept,        // the new ones, for good: what is left to be done is finish
};

struct cluster_limits {
  std::uint32_t fences = 20;             // tries to reach one, before the job is undone
  std::uint32_t undos = 30;              // tries to undo, before it is left for a later run
  std::uint32_t runs = 5;                // begun again after a runner was lost
  std::int64_t pause = 1000;             // ms before something is tried again
};

class cluster_job {
 public:
  // `runs`: how often it has been begun before (by runners that were lost).
  explicit cluster_job(std::uint32_t runs = 0, cluster_limits = {});

  struct todo {
    cluster_step what;
    std::int64_t wait = 0;               // ms before it
  };
  // None when it is over. The same until one of the following was said.
  std::optional<todo> next() const;

  void took(cluster_stored);             // take succeeded
  void succeeded();                      // any other but settle and reverse
  void settled(cluster_stored);          // settle: moving, flipped, returned
  enum class wish { roll_back, finish };
  void told(wish);                       // reverse succeeded
  // `transient`: may go well a little later (take; a fence that was not reached or did not last);
  // of begin: it is not known whether the router has heard it.
  void failed(pg_error, bool transient = false);
  void uncertain(pg_error);              // flip: what became of it is not known
  // Asked for by the operator: undoes what is not flipped yet. Of no effect later.
  void abort();

  bool over() const { return over_; }
  bool done() const { return over_ && done_; }          // the new servers have the name, for good
  bool returned() const { return returned_; }           // the old ones have it again
  bool past_flip() const { return past_flip_; }         // the first one
  bool on_the_way_back() const { return way_back_; }    // the next flip gives the name back
  bool undone() const { return undone_; }               // nothing was left behind
  // Why not done; in reverse: why the last try to go back came to nothing.
  const std::optional<pg_error>& reason() const { return reason_; }

 private:
  void to(cluster_step what, std::int64_t wait = 0) { next_ = {what, wait}; }
  void back_out();
  void stay();
  void pass(bool returned);
  bool retried(cluster_step, bool transient);
  void finish(bool done);

  cluster_limits limits_;
  todo next_{cluster_step::take, 0};
  std::uint32_t runs_, fences_ = 0, undos_ = 0;
  bool over_ = false, done_ = false, undone_ = true, registered_ = false, aborted_ = false;
  bool past_flip_ = false, way_back_ = false, returned_ = false;
  bool fenced_ = false, retry_ = false, again_ = false;
  std::optional<pg_error> reason_;
};

}  // namespace pgsled::moving
