#include "common/moving/job.hpp"

#include <array>
#include <utility>

namespace pgsled::moving {

namespace {

constexpr std::array names{"take",     "check",   "begin", "record", "refine",  "prepare", "copy",
                           "catch_up", "compare", "fence", "verify", "flip",    "settle",  "lift",
                           "undo",     "flipped", "clean", "drop",   "end",     "paused"};

// What comes after a step that went well, on the way that everything goes well.
step after(step what) {
  return static_cast<step>(static_cast<std::uint8_t>(what) + 1);
}

bool undoable(step what) { return what < step::settle || what == step::pause; }

pg_error asked_for() {
  return {"57014", "the move was aborted as asked", {}, {}};
}

}  // namespace

std::string_view name_of(step what) { return names.at(static_cast<std::size_t>(what)); }

job::job(std::uint32_t runs, job_limits limits) : limits_(limits), runs_(runs) {}

std::optional<job::todo> job::next() const {
  if (over_) return std::nullopt;
  return next_;
}

void job::took(stored found) {
  PGSLED_ASSERT(!over_ && next_.what == step::take);
  if (found == stored::flipped) {
    past_flip_ = registered_ = true;
    return to(step::flipped);
  }
  if (found != stored::nothing) {
    registered_ = true;
    undone_ = false;
    again_ = found == stored::moving && !aborted_ && runs_ < limits_.runs;
    if (found == stored::given_up) {
      reason_ = pg_error{"57P01", "the move was given up by its runner", {}, {}};
    } else if (!again_) {
      reason_ = aborted_ ? asked_for()
                         : pg_error{"57P01", "the move has lost its runner too often", {}, {}};
    }
    fenced_ = true;   // perhaps
    return back_out();
  }
  if (aborted_) {
    reason_ = asked_for();
    return finish(false);
  }
  to(step::check);
}

void job::succeeded() {
  PGSLED_ASSERT(!over_);
  const step what = next_.what;
  if (what == step::begin) registered_ = true;
  if (aborted_ && undoable(what)) {
    if (what == step::fence || what == step::verify) fenced_ = true;
    if (what >= step::record) undone_ = false;
    reason_ = asked_for();
    if (what != step::flip) return back_out();   // too late: it has happened
    reason_.reset();
  }
  switch (what) {
    case step::take:
    case step::settle: PGSLED_ASSERT(false); return;
    case step::begin: undone_ = false; break;
    case step::fence: fenced_ = true; break;
    case step::flip:
      past_flip_ = true;
      goes_on_ = false;
      return to(step::flipped);
    case step::lift:
      fenced_ = false;
      if (uncertain_) return to(step::settle);
      if (std::exchange(pausing_, false) && !aborted_) return to(step::pause);
      if (std::exchange(retry_, false) && !aborted_) return to(step::catch_up, limits_.pause);
      if (aborted_ && !reason_) reason_ = asked_for();
      return to(step::undo);
    case step::undo:
      undone_ = true;
      if (again_) {
        again_ = false;
        ++runs_;
        fences_ = undos_ = 0;
        return to(step::check);
      }
      return to(step::end);
    case step::end: return finish(past_flip_ && !goes_on_);
    case step::pause:
      again_ = begins_again();
      return to(after_pause_);
    default: break;
  }
  to(after(what));
}

void job::go_on() {
  PGSLED_ASSERT(!over_ && next_.what == step::drop);
  goes_on_ = true;
  if (aborted_) {
    reason_ = asked_for();
    return to(step::end);
  }
  past_flip_ = fenced_ = false;
  undone_ = true;
  fences_ = undos_ = runs_ = 0;
  to(step::check);
}

void job::settled(bool flipped) {
  PGSLED_ASSERT(!over_ && next_.what == step::settle);
  if (flipped) {
    past_flip_ = true;
    goes_on_ = false;
    reason_.reset();
    return to(step::flipped);
  }
  uncertain_ = false;
  to(step::undo);
}

void job::failed(pg_error why, bool transient) {
  PGSLED_ASSERT(!over_);
  const step what = next_.what;
  if (past_flip_ || what == step::settle || what == step::lift) {
    // Only forward; before a fence is known to be gone nothing else may be touched.
    if (!past_flip_ && !reason_) reason_ = std::move(why);
    return to(what, limits_.pause);
  }
  if (what == step::undo) {
    if (++undos_ < limits_.undos) return to(what, limits_.pause);
    if (!reason_) reason_ = std::move(why);
    return finish(false);   // it stays registered: a later run goes on with undoing
  }
  if (what == step::end) {
    if (++undos_ < limits_.undos) return to(what, limits_.pause);
    return finish(false);
  }
  if (what == step::take) {
    if (transient && ++undos_ < limits_.undos) return to(what, limits_.pause);
    reason_ = std::move(why);
    return finish(false);
  }
  if (what == step::pause) {
    reason_ = aborted_ ? asked_for() : std::move(why);
    return back_out();
  }
  if (what >= step::fence || what == step::refine) fenced_ = true;
  if (what >= step::fence && transient && !aborted_ && ++fences_ < limits_.fences) {
    retry_ = true;
    return to(step::lift);
  }
  if (what == step::compare && transient && !aborted_ && ++fences_ < limits_.fences) {
    return to(step::catch_up);
  }
  reason_ = aborted_ ? asked_for() : std::move(why);
  if (what == step::begin && transient) registered_ = true;   // perhaps
  back_out();
}

void job::pause(pg_error why, bool begin_again) {
  const step what = next_.what;
  PGSLED_ASSERT(!over_ && (what == step::copy || what == step::catch_up || what == step::compare ||
                           what == step::fence || what == step::verify));
  if (aborted_ || (begin_again && runs_ >= limits_.runs)) return failed(std::move(why));
  after_pause_ = begin_again          ? step::undo
                 : what == step::copy ? step::copy
                                      : step::catch_up;
  if (what < step::fence) return to(step::pause);
  fenced_ = pausing_ = true;
  to(step::lift);
}

void job::uncertain(pg_error why) {
  PGSLED_ASSERT(!over_ && next_.what == step::flip);
  reason_ = std::move(why);
  fenced_ = uncertain_ = true;
  to(step::lift);
}

void job::abort() { aborted_ = true; }

void job::back_out() {
  if (fenced_) return to(step::lift);
  if (!undone_) return to(step::undo);
  if (registered_) return to(step::end);
  finish(false);
}

void job::finish(bool done) {
  over_ = true;
  done_ = done;
  if (done) reason_.reset();
}

}  // namespace pgsled::moving
