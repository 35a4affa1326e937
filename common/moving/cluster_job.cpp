#include "common/moving/cluster_job.hpp"

#include <array>
#include <utility>

namespace pgsled::moving {

namespace {

using step = cluster_step;

constexpr std::array names{"take",    "check",  "begin", "record", "prepare", "copy",    "catch_up",
                           "compare", "ready",  "back",  "fence",  "verify",  "flip",    "flipped",
                           "reverse", "finish", "settle", "lift",  "undo",    "end"};

// What comes after a step that went well, on the way that everything goes well.
step after(step what) { return static_cast<step>(static_cast<std::uint8_t>(what) + 1); }

pg_error asked_for() { return {"57014", "the move was aborted as asked", {}, {}}; }

}  // namespace

std::string_view name_of(step what) { return names.at(static_cast<std::size_t>(what)); }

cluster_job::cluster_job(std::uint32_t runs, cluster_limits limits)
    : limits_(limits), runs_(runs) {}

std::optional<cluster_job::todo> cluster_job::next() const {
  if (over_) return std::nullopt;
  return next_;
}

void cluster_job::took(cluster_stored found) {
  PGSLED_ASSERT(!over_ && next_.what == step::take);
  switch (found) {
    case cluster_stored::flipped:
    case cluster_stored::returned:
      fenced_ = found == cluster_stored::flipped;   // perhaps, of a way back
      return pass(found == cluster_stored::returned);
    case cluster_stored::kept:
      past_flip_ = registered_ = true;
      return to(step::finish);
    case cluster_stored::moving:
    case cluster_stored::given_up:
      registered_ = true;
      undone_ = false;
      again_ = found == cluster_stored::moving && !aborted_ && runs_ < limits_.runs;
      if (!again_) {
        reason_ = aborted_ ? asked_for()
                  : found == cluster_stored::given_up
                      ? pg_error{"57P01", "the move was given up by its runner", {}, {}}
                      : pg_error{"57P01", "the move has lost its runner too often", {}, {}};
      }
      fenced_ = true;   // perhaps
      return back_out();
    case cluster_stored::nothing: break;
  }
  if (aborted_) {
    reason_ = asked_for();
    return finish(false);
  }
  to(step::check);
}

void cluster_job::succeeded() {
  PGSLED_ASSERT(!over_);
  const step what = next_.what;
  PGSLED_ASSERT(what != step::take && what != step::settle && what != step::reverse);
  if (what == step::begin) registered_ = true;
  if (what == step::record) undone_ = false;
  if (what == step::fence) fenced_ = true;
  if (aborted_ && !past_flip_ && what < step::flip) {
    reason_ = asked_for();
    return back_out();
  }
  switch (what) {
    case step::flip: return pass(way_back_);
    case step::compare:
      // On the way back everything that is needed is there, and there is nothing to wait for.
      return to(way_back_ ? step::fence : step::ready);
    case step::flipped:
      if (std::exchange(fenced_, false)) return to(step::lift);
      return to(returned_ ? step::finish : step::reverse);
    case step::lift:
      fenced_ = false;
      if (past_flip_) {
        if (std::exchange(retry_, false)) return to(step::catch_up, limits_.pause);
        way_back_ = false;
        return to(returned_ ? step::finish : step::reverse);
      }
      if (std::exchange(retry_, false) && !aborted_) return to(step::catch_up, limits_.pause);
      if (aborted_ && !reason_) reason_ = asked_for();
      return to(step::undo);
    case step::undo:
      undone_ = true;
      if (std::exchange(again_, false) && !aborted_) {
        ++runs_;
        fences_ = undos_ = 0;
        return to(step::check);
      }
      if (!reason_) reason_ = asked_for();
      return to(step::end);
    case step::finish: return to(step::end);
    case step::end: return finish(past_flip_ && !returned_);
    default: return to(after(what));
  }
}

void cluster_job::told(wish what) {
  PGSLED_ASSERT(!over_ && next_.what == step::reverse);
  reason_.reset();
  if (what == wish::finish) return to(step::finish);
  way_back_ = true;
  fences_ = 0;
  to(step::catch_up);
}

void cluster_job::settled(cluster_stored found) {
  PGSLED_ASSERT(!over_ && next_.what == step::settle);
  const bool happened = found == (way_back_ ? cluster_stored::returned : cluster_stored::flipped);
  if (happened) return pass(way_back_);
  fenced_ = true;
  retry_ = false;
  to(step::lift);   // then undo, or reverse
}

void cluster_job::failed(pg_error why, bool transient) {
  PGSLED_ASSERT(!over_);
  const step what = next_.what;
  // Whether others may go on is not known before it has been done.
  if (what == step::settle || what == step::lift || what == step::flipped) {
    if (!past_flip_ && !reason_) reason_ = std::move(why);
    return to(what, limits_.pause);
  }
  if (what == step::take) {
    if (transient && ++undos_ < limits_.undos) return to(what, limits_.pause);
    reason_ = std::move(why);
    return finish(false);
  }
  if (what == step::undo || (what == step::end && !past_flip_)) {
    if (++undos_ < limits_.undos) return to(what, limits_.pause);
    if (!reason_) reason_ = std::move(why);
    return finish(false);   // it stays registered: a later run goes on with it
  }
  if (past_flip_ && !way_back_) return to(what, limits_.pause);   // reverse, finish, end
  if (past_flip_ && returned_) return to(what, limits_.pause);
  if (what == step::fence || what == step::verify || what == step::flip) fenced_ = true;
  if (retried(what, transient)) return;
  reason_ = aborted_ && !past_flip_ ? asked_for() : std::move(why);
  if (past_flip_) return stay();
  if (what == step::begin && transient) registered_ = true;   // perhaps
  if (what == step::record) undone_ = false;                  // on some shards
  back_out();
}

// What has not lasted, or was too slow, is tried again from catch_up.
bool cluster_job::retried(step what, bool transient) {
  const bool may = what == step::compare || what == step::back || fenced_;
  if (!may || !transient || (aborted_ && !past_flip_) || ++fences_ >= limits_.fences) return false;
  retry_ = fenced_;
  to(fenced_ ? step::lift : step::catch_up, fenced_ ? 0 : limits_.pause);
  return true;
}

// The new servers keep the name; the operator may ask for the way back again.
void cluster_job::stay() {
  retry_ = false;
  if (fenced_) return to(step::lift);
  way_back_ = false;
  to(step::reverse, limits_.pause);
}

void cluster_job::pass(bool returned) {
  if (!past_flip_) reason_.reset();
  past_flip_ = registered_ = true;
  returned_ = way_back_ = returned;
  undone_ = false;
  if (next_.what != step::take) fenced_ = false;   // `flipped` ends this one
  to(step::flipped);
}

void cluster_job::uncertain(pg_error why) {
  PGSLED_ASSERT(!over_ && next_.what == step::flip);
  reason_ = std::move(why);
  to(step::settle);
}

void cluster_job::abort() { aborted_ = true; }

void cluster_job::back_out() {
  retry_ = false;
  if (fenced_) return to(step::lift);
  if (!undone_) return to(step::undo);
  if (registered_) return to(step::end);
  finish(false);
}

void cluster_job::finish(bool done) {
  over_ = true;
  done_ = done;
  if (done) reason_.reset();
}

}  // namespace pgsled::moving
