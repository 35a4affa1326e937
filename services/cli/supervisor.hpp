#pragma once
// supervisor: decides which process of a suite on one machine is started, signalled and given up,
// and when. A pure machine: events and the time in, actions out; no process, no clock.
//
// Running: a member that ends is started again, at once the first time, then after 0.1 s doubling
// to 5 s; one that was up for 10 s has its next end forgiven. A router that ends by itself with
// status 0 has carried out an operator's SHUTDOWN: everybody is stopped. Stopping: frontends,
// poolers, replicators and the router get SIGTERM in this order, each group once the one before it
// has ended or its time is up; what outlives its time gets SIGKILL, so that all is over within 10
// s.

#include <chrono>
#include <cstddef>
#include <optional>
#include <vector>

namespace pgsled::cli {

class supervisor {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  using milliseconds = std::chrono::milliseconds;
  enum class role { router, replicator, pooler, frontend };
  enum class what { start, terminate, kill, reload };
  struct action {
    what kind;
    std::size_t member;
    bool operator==(const action&) const = default;
  };
  using actions = std::vector<action>;

  static constexpr milliseconds first_delay{100}, longest_delay{5000}, long_enough_up{10000};

  // Members in the order in which they are started.
  explicit supervisor(std::vector<role> members);

  actions begin(time_point now);
  // The member's process has ended (`clean`: by itself with status 0), or could not be started.
  actions ended(std::size_t member, time_point now, bool clean = false);
  // A second call kills whatever is left.
  actions stop(time_point now);
  actions reload() const;
  // To be called at `next()` or later.
  actions tick(time_point now);

  std::optional<time_point> next() const;  // when tick() has something to do
  bool stopping() const { return stopping_; }
  bool finished() const;                   // stopping, and nothing is left
  milliseconds delay_of(std::size_t member) const;  // from the end seen last to the restart

 private:
  struct member {
    supervisor::role role;
    bool up = false;
    time_point since{};                 // of the last start
    std::optional<time_point> restart;  // when it is due
    milliseconds delay{0};              // before the restart that is due
    milliseconds following{0};          // before the one after that
  };
  void start(std::size_t, time_point, actions&);
  void advance(time_point, actions&);  // the stop, from group to group
  bool group_up(role) const;

  std::vector<member> members_;
  bool stopping_ = false;
  std::size_t group_ = 0;  // index into the order of stopping
  time_point stop_began_{};
};

}  // namespace pgsled::cli
