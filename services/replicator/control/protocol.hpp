#pragma once
// The control socket's protocol (docs/formats/control.md): lines of JSON in, lines of JSON out.
// Pure: no socket, no clock. One control_protocol per connection.

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "common/moving/goal.hpp"
#include "services/replicator/move/job_runner.hpp"
#include "services/replicator/move/progress.hpp"

namespace pgsled::replicator {

struct status_report {
  std::string instance, boot, router, state;  // state: starting, ready, disconnected, draining
  std::int64_t pid = 0, uptime_ms = 0;
  bool connected = false;
  std::uint64_t epoch = 0;
};

struct reshard_order {
  std::string database;
  moving::goal_kind kind = moving::goal_kind::add_shard;
  std::optional<std::uint32_t> shard = {};   // add-shard without one: the first that is joining
  bool dry_run = false;
  // Of a move to the servers of another database; then the two above mean nothing.
  std::string to = {};
  bool automatic_cutover = true;
  bool only_schema = false;
};
// As somebody asks for it, at the control socket or in the admin database: 0A000 for what is not
// known, 22023 for a shard that is none or is missing. `to` and `cutover` are of a move to another
// cluster, or of its definitions alone: automatic, wait, or empty for automatic.
result<reshard_order> read_order(std::string database, std::string_view kind,
                                 std::optional<std::int64_t> shard, std::string to,
                                 std::string_view cutover);

// What the requests about moves do. `done` is called once, at once or later, on the same thread.
struct reshard_hooks {
  std::function<result<std::string>(const reshard_order&)> start;  // its job
  std::function<void(const std::string& job, std::function<void(result<bool>)> done)> abort;
  std::function<void(const std::string& job, job_runner::wish, std::function<void(result<bool>)>)>
      act;                                              // of a move to another cluster
  std::function<std::vector<move_progress>()> list;     // of this process, the newest last
  // Of all processes, as JSON. Not complete: the router was not reached, these are this process's.
  std::function<void(std::function<void(bool complete, std::vector<std::string>)> done)> list_all;
};

class control_protocol {
 public:
  static constexpr std::size_t max_line = 64u << 10;  // bytes, without the line's end

  explicit control_protocol(std::function<status_report()> status, reshard_hooks reshard = {})
      : status_(std::move(status)), reshard_(std::move(reshard)) {}

  // Takes any piece of the stream and appends the answers to what it completes. A longer line is
  // answered with one error as soon as it is too long, and skipped to its end. While an answer is
  // waited for, what comes is kept: feed no more than that until waiting() is over.
  void feed(byte_span bytes, std::string& answers);
  // Appends answers that have come, what has changed of the move that is watched, and its end.
  void tick(std::string& answers);
  bool watching() const { return !watched_.empty(); }
  bool waiting() const { return waiting_; }

 private:
  void lines(std::string_view rest, std::string& answers);
  void answer(std::string_view line, std::string& to);
  void start(const boost::json::object&, const std::string& id, std::string& to);
  void list(const std::string& id);
  void abort(const std::string& id, const std::string& job);
  void act(const std::string& id, const std::string& job, job_runner::wish);
  std::function<void(result<bool>)> answered(const std::string& id);
  // The answer to the request that is waited for, unless the connection is gone by then.
  std::function<void(std::string line)> later();
  void collect(std::string& to);

  std::function<status_report()> status_;
  reshard_hooks reshard_;
  std::string watched_, watch_id_;   // job; id of the request, as JSON
  std::string told_;                 // the last event
  std::string partial_;
  std::string held_;                 // came while an answer was waited for
  std::string ready_;                // answers that have come
  bool skipping_ = false, waiting_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// A line for a connection that cannot be served.
std::string control_refusal(std::string_view sqlstate, std::string_view message);

}  // namespace pgsled::replicator
