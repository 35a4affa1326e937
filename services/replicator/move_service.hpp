#pragma once
// move_service: the moves of this replicator: of some databases side by side, each on a thread of
// its own, and of one database one at a time; what it tells about them; and a look now and then for
// moves that nobody goes on with. Thread rule: its reactor's thread.

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/bus/peer.hpp"
#include "common/metrics/metrics.hpp"
#include "common/net/reactor.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/replicator/cluster/runner.hpp"
#include "services/replicator/control/protocol.hpp"
#include "services/replicator/move/runner.hpp"
#include "services/replicator/patience.hpp"

namespace pgsled::replicator {

class move_service {
 public:
  static constexpr std::size_t remembered = 16;    // moves, with those that run
  static constexpr std::size_t most_at_once = 4;   // a job of each may stay for days

  move_service(net::reactor&, bus::peer& router);
  ~move_service();                                 // stops the moves, and waits for their threads
  move_service(const move_service&) = delete;
  move_service& operator=(const move_service&) = delete;

  void configure(const snapshot::replicator&);   // where buckets may move, and moves there are
  void stop();                                          // begins nothing more
  reshard_hooks hooks();
  // Of this process, for the router (docs/formats/gather.md).
  std::vector<move_progress> moves() const;
  bool abort_own(const std::string& job);               // false: it does not run here
  // Of a move to another cluster; none when it does not run here.
  std::optional<result<bool>> act_own(const std::string& job, job_runner::wish);

 private:
  struct known {
    std::uint64_t number = 0;          // a job may be known twice: lost, and taken again
    std::string other;                 // of a move to the servers of that database
    move_progress now;
    // Why it did not go on before is not so any more; what is still under way is not shown.
    std::chrono::steady_clock::time_point asked_to_go_on{};
  };
  struct running {
    std::unique_ptr<job_runner> runner;
    std::thread thread;
    std::chrono::steady_clock::time_point told{};   // runner's thread
    std::string told_step;                          // runner's thread
  };

  result<std::string> start(const reshard_order&, bool automatic);
  void abort(const std::string& job, std::function<void(result<bool>)> done);
  void list_all(std::function<void(bool complete, std::vector<std::string>)> done);
  void act(const std::string& job, job_runner::wish, std::function<void(result<bool>)> done);
  void ask_others(const char* what, const std::string& job,
                  std::function<void(result<bool>)> done);
  using maker = std::function<std::unique_ptr<job_runner>(std::string runner, job_runner::asker,
                                                          job_runner::teller)>;
  void begin(move_order);
  void begin(cluster_order);
  void begin(move_progress first, std::string other, const maker&);
  known* find(std::uint64_t number);
  // That runs here, and whether it is only tried.
  const known* of_database(const std::string& database) const;
  job_runner* runner_of(const std::string& job) const;
  std::size_t really_running() const;
  void forget_old();
  void look();
  void take_over();
  void add_by_itself();
  void heard(std::uint64_t number, const move_progress&);
  void count(const move_progress& before, const move_progress& now);
  void count_running();
  void over(std::uint64_t number);
  result<std::string> ask(const snapshot::move_request&, std::chrono::milliseconds deadline);

  net::reactor& loop_;
  bus::peer& router_;
  std::vector<std::string> databases_;
  std::vector<std::pair<std::string, std::string>> registered_moves_;   // database, job
  std::vector<snapshot::cluster_job> registered_clusters_;
  std::size_t looked_at_ = 0;          // of both together: whose turn it is
  patience automatic_;                             // with shards that are joining
  std::deque<known> moves_;                        // the newest last
  metrics::cell running_now_, paused_now_, done_, undone_, rows_, changes_, lag_, fences_, refused_,
      waited_;
  std::vector<std::shared_ptr<void>> registered_;
  std::map<std::uint64_t, std::shared_ptr<running>> running_;   // by number
  std::uint64_t numbers_ = 0;
  std::shared_ptr<std::atomic<bool>> stopped_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace pgsled::replicator
