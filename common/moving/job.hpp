#pragma once
// job: the order of a move of buckets to a new shard, and what follows from a failure. A pure
// machine: the driver asks what to do next, does it, and says how it went.
//
//   take → check → begin → record → refine → prepare → copy → catch_up → compare → fence → verify
//        → flip → flipped → clean → drop → end
//
// Until the flip everything can be undone: lift (when a fence may be there) → undo → end. From the
// flip on there is only forward, as often as it takes. A flip whose outcome is not known is lifted,
// so that it cannot happen any later, and then looked at (settle). A job that somebody else left
// behind is undone and begun again, or gone on with after its flip.
//
// A job whose goal takes several moves begins the next one after drop (go_on), still registered;
// what fails then undoes that move alone.
//
// Where the tables of two shards are not alike any more the move pauses: lift (when there is a
// fence) → pause, until they are; then it catches up and compares all again.
//
// Nothing is flipped but straight after a verify that found no difference under the same fence.
// Thread rule: its owner's.

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::moving {

enum class step : std::uint8_t {
  take,      // be the only runner of the job; answered with what is stored of it
  check,     // pre-flight
  begin,     // register it with the router
  record,    // store it on all shards
  refine,    // split the buckets, when they are too few to hand out
  prepare,   // identities, publications, slots
  copy,      // under the snapshots of the slots
  catch_up,  // apply the streams until little is left
  compare,   // both sides at one position, while the clients go on
  fence,     // hold the clients back, and apply what they had done
  verify,    // compare what has changed since; sequences
  flip,      // the new map, on all shards at once
  settle,    // what became of the flip
  lift,      // give the fence up
  undo,      // leave nothing behind
  flipped,   // all frontends use the new map
  clean,     // old rows on the sources
  drop,      // slots, publications, identities
  end,       // the router forgets the job
  pause,     // slots and copies are kept until the tables of all shards are alike again
};
std::string_view name_of(step);

// Of a job that is registered: moving, flipped, or given up by its runner, who could not say so.
enum class stored { nothing, moving, flipped, given_up };

struct job_limits {
  std::uint32_t fences = 20;             // tries to reach one, before the job is undone
  std::uint32_t undos = 30;              // tries to undo, before it is left for a later run
  std::uint32_t runs = 5;                // begun again after a runner was lost
  std::int64_t pause = 1000;             // ms before something is tried again
};

class job {
 public:
  // `runs`: how often it has been begun before (by runners that were lost).
  explicit job(std::uint32_t runs = 0, job_limits = {});

  struct todo {
    step what;
    std::int64_t wait = 0;               // ms before it
  };
  // None when it is over. The same until one of the following was said.
  std::optional<todo> next() const;

  void took(stored);                     // take succeeded
  void succeeded();                      // any other but settle
  void go_on();                          // drop succeeded, and the goal needs another move
  void settled(bool flipped);
  // `transient`: may go well a little later (take; a fence that was not reached or did not last);
  // of begin: it is not known whether the router has heard it.
  void failed(pg_error, bool transient = false);
  // Copy, catch_up, compare, fence or verify have found that tables are not those they were. The
  // reason is what pause() is to be ended with, if there is no other. `begin_again`, of a copy that
  // has begun: what of the rows is there cannot be told, so after the pause it is undone first.
  void pause(pg_error, bool begin_again = false);
  bool begins_again() const { return after_pause_ == step::undo; }   // after this pause
  // The flip was sent, and what became of it is not known.
  void uncertain(pg_error);              // then it is lifted, so that it cannot happen later
  // Asked for by the operator. Undoes a move before its flip; after it, there is no next one.
  void abort();

  bool over() const { return over_; }
  bool done() const { return over_ && done_; }          // the buckets have moved, all of them
  bool past_flip() const { return past_flip_; }
  bool undone() const { return undone_; }               // nothing was left behind
  bool again() const { return again_; }                 // what is undone is begun anew
  const std::optional<pg_error>& reason() const { return reason_; }   // why not done

 private:
  void to(step what, std::int64_t wait = 0) { next_ = {what, wait}; }
  void back_out();
  void finish(bool done);

  job_limits limits_;
  todo next_{step::take, 0};
  std::uint32_t runs_, fences_ = 0, undos_ = 0;
  bool over_ = false, done_ = false, past_flip_ = false, undone_ = true, registered_ = false;
  bool fenced_ = false, uncertain_ = false, retry_ = false, again_ = false, aborted_ = false;
  bool pausing_ = false;                 // after the lift
  step after_pause_ = step::catch_up;
  bool goes_on_ = false;                 // the goal needs more than what has moved
  std::optional<pg_error> reason_;
};

}  // namespace pgsled::moving
