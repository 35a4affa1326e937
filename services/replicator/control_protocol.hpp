#pragma once
// The control socket's protocol (docs/formats/control.md): lines of JSON in, lines of JSON out.
// Pure: no socket, no clock. One control_protocol per connection.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "services/replicator/move_progress.hpp"

namespace pgsled::replicator {

struct status_report {
  std::string instance, boot, router, state;  // state: starting, ready, disconnected, draining
  std::int64_t pid = 0, uptime_ms = 0;
  bool connected = false;
  std::uint64_t epoch = 0;
};

// What the requests about moves do.
struct reshard_hooks {
  std::function<result<std::string>(const std::string& database, bool dry_run)> start;  // its job
  std::function<result<bool>(const std::string& job)> abort;
  std::function<std::vector<move_progress>()> list;     // the newest last
};

class control_protocol {
 public:
  static constexpr std::size_t max_line = 64u << 10;  // bytes, without the line's end

  explicit control_protocol(std::function<status_report()> status, reshard_hooks reshard = {})
      : status_(std::move(status)), reshard_(std::move(reshard)) {}

  // Takes any piece of the stream and appends the answers to what it completes. A longer line is
  // answered with one error as soon as it is too long, and skipped to its end.
  void feed(byte_span bytes, std::string& answers);
  // Appends what has changed of the move that is watched, and the answer when it is over.
  void tick(std::string& answers);
  bool watching() const { return !watched_.empty(); }

 private:
  void answer(std::string_view line, std::string& to);

  std::function<status_report()> status_;
  reshard_hooks reshard_;
  std::string watched_, watch_id_;   // job; id of the request, as JSON
  std::string told_;                 // the last event
  std::string partial_;
  bool skipping_ = false;
};

// A line for a connection that cannot be served.
std::string control_refusal(std::string_view sqlstate, std::string_view message);

}  // namespace pgsled::replicator
