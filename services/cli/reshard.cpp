#include "services/cli/reshard.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/net/socket.hpp"
#include "services/cli/run_dir.hpp"

namespace pgsled::cli {
namespace json = boost::json;
namespace {

constexpr std::size_t longest_answer = 16u << 20;

std::vector<std::string> control_sockets(const reshard_options& options) {
  std::vector<std::string> found;
  std::error_code ec;
  const auto directory = options.run_dir.empty() ? default_run_dir() : options.run_dir;
  for (const auto& one : std::filesystem::directory_iterator(directory, ec)) {
    if (one.path().extension() == ".control") found.push_back(one.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// One connection to a control socket: lines out and in.
class control_line {
 public:
  static std::optional<control_line> open(const std::string& path) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    if (path.size() >= sizeof to.sun_path) return std::nullopt;
    std::memcpy(to.sun_path, path.c_str(), path.size() + 1);
    net::unique_fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      return std::nullopt;
    }
    return control_line(std::move(fd));
  }

  // The next line after `request` was sent, if there is one.
  std::optional<json::object> ask(const json::object& request) {
    const auto line = json::serialize(request) + "\n";
    if (::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(line.size())) {
      return std::nullopt;
    }
    return next();
  }
  std::optional<json::object> next() {
    while (true) {
      if (const auto end = read_.find('\n'); end != std::string::npos) {
        json::error_code ec;
        auto got = json::parse(json::string_view(read_.data(), end), ec);
        read_.erase(0, end + 1);
        if (ec || !got.is_object()) return std::nullopt;
        return std::move(got.as_object());
      }
      std::array<char, 16 * 1024> piece;
      const auto n = ::recv(fd_.get(), piece.data(), piece.size(), 0);
      if (n <= 0 || read_.size() > longest_answer) return std::nullopt;
      read_.append(piece.data(), static_cast<std::size_t>(n));
    }
  }

 private:
  explicit control_line(net::unique_fd fd) : fd_(std::move(fd)) {}
  net::unique_fd fd_;
  std::string read_;
};

std::string text_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->as_string()) : std::string();
}
std::int64_t number_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  return value != nullptr && value->is_int64() ? value->as_int64() : 0;
}
const json::object* object_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  return value != nullptr && value->is_object() ? &value->as_object() : nullptr;
}
const json::array* array_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  return value != nullptr && value->is_array() ? &value->as_array() : nullptr;
}

std::string in_time(std::int64_t ms) {
  const std::int64_t s = ms / 1000;
  if (s < 60) return fmt::format("{} s", s);
  return s < 3600 ? fmt::format("{} min {} s", s / 60, s % 60)
                  : fmt::format("{} h {} min", s / 3600, s / 60 % 60);
}

std::string render(const json::object& move) {
  const auto outcome = text_of(move, "outcome");
  const auto goal = text_of(move, "goal");
  auto line = fmt::format("{} {}: {}{}", text_of(move, "database"), text_of(move, "job"),
                          goal.empty() ? "" : goal + ": ",
                          outcome == "running"   ? text_of(move, "step")
                          : outcome == "waiting" ? "waits for a replicator to go on with it"
                                                 : outcome);
  if (const auto buckets = number_of(move, "buckets"); buckets != 0) {
    line += fmt::format(", {} of {} buckets to shard {}", number_of(move, "moving"), buckets,
                        number_of(move, "destination"));
    if (const auto round = number_of(move, "round"); round > 1) {
      line += fmt::format(" (move {})", round);
    }
  }
  if (const auto rows = number_of(move, "rows"); rows != 0) {
    const auto expected = number_of(move, "rows_expected");
    line += fmt::format(", {}{} rows ({} bytes) copied", rows,
                        expected > rows ? fmt::format(" of about {}", expected) : std::string(),
                        number_of(move, "bytes"));
    const bool copies = text_of(move, "step") == "copy" && outcome == "running";
    if (const auto rate = number_of(move, "rows_per_s"); rate != 0 && copies) {
      line += fmt::format(", {} rows/s", rate);
    }
    if (const auto left = number_of(move, "left_ms"); left != 0 && copies) {
      line += fmt::format(", {} left", in_time(left));
    }
  }
  if (const auto changes = number_of(move, "changes"); changes != 0) {
    line += fmt::format(", {} changes followed", changes);
  }
  if (const auto lag = number_of(move, "lag_bytes"); lag != 0) {
    line += fmt::format(", {} bytes behind", lag);
  }
  if (const auto pause = number_of(move, "fence_ms"); pause != 0) {
    line += fmt::format(", fence held for {} ms", pause);
  }
  if (const auto* error = object_of(move, "error")) {
    line += fmt::format(": {} {}", text_of(*error, "sqlstate"), text_of(*error, "message"));
  }
  if (move.contains("next_try_ms")) {
    line += fmt::format("; tried again by itself {} s after that",
                        number_of(move, "next_try_ms") / 1000);
  }
  return line;
}

void print_list(const json::object& move, const char* key, const char* label) {
  const auto* list = array_of(move, key);
  if (list == nullptr) return;
  for (const auto& one : *list) {
    if (one.is_string()) fmt::print(stderr, "{}: {}\n", label, std::string(one.as_string()));
  }
}

// Of a dry run: what will come to the destination, to compare with what is free there.
void print_coming(const json::object& move) {
  const auto* list = array_of(move, "coming");
  if (list == nullptr) return;
  std::int64_t bytes = 0;
  for (const auto& one : *list) {
    if (!one.is_object()) continue;
    const auto& table = one.as_object();
    bytes += number_of(table, "bytes");
    fmt::print("{}: about {} rows, {} bytes with indexes to shard {}\n", text_of(table, "table"),
               number_of(table, "rows"), number_of(table, "bytes"),
               number_of(move, "destination"));
  }
  if (list->empty()) return;
  fmt::print("in all about {} bytes to shard {}; each source keeps up to {} bytes of log meanwhile "
             "(resharding_slot_limit)\n", bytes, number_of(move, "destination"),
             number_of(move, "log_limit_bytes"));
}

void print_error(const json::object& answer) {
  if (const auto* error = object_of(answer, "error")) {
    fmt::print(stderr, "pgsled reshard: {} {}\n", text_of(*error, "sqlstate"),
               text_of(*error, "message"));
  }
}

int nobody() {
  fmt::print(stderr, "pgsled reshard: no replicator answers; is the suite up, and --run-dir "
                     "right?\n");
  return 2;
}

// Set by SIGINT while a move is watched: it goes on without.
volatile std::sig_atomic_t interrupted = 0;

class detachable {
 public:
  detachable() {
    struct sigaction act{};
    act.sa_handler = [](int) { interrupted = 1; };   // without SA_RESTART: reading ends
    ::sigaction(SIGINT, &act, &before_);
  }
  ~detachable() { ::sigaction(SIGINT, &before_, nullptr); }
  detachable(const detachable&) = delete;
  detachable& operator=(const detachable&) = delete;

 private:
  struct sigaction before_{};
};

constexpr int detached = 130;   // as shells call what SIGINT has ended

int detach() {
  fmt::print(stderr, "\npgsled reshard: the move goes on. See it again: pgsled reshard status "
                     "--follow\n");
  return detached;
}

// What follows from the file and the map for an operator who has emptied a shard.
void advise(const json::object& move) {
  const auto goal = text_of(move, "goal");
  constexpr std::string_view emptied = "remove-shard ";
  if (!goal.starts_with(emptied) || text_of(move, "outcome") != "done") return;
  const auto shard = goal.substr(emptied.size());
  fmt::print(stderr,
             "shard {0} owns no rows of tables that are placed by hash any more. If it has the "
             "highest number, take it out of pgdog.toml and RELOAD; shards are known by their "
             "numbers, so one with a lower number has to stay there.\n", shard);
}

// Where a move to another cluster stays until the operator says what next.
bool waits_for_word(const json::object& move, bool until_ready) {
  const auto step = text_of(move, "step");
  return text_of(move, "outcome") == "running" && !move.contains("error") &&
         (step == "reverse" || (until_ready && step == "ready"));
}

// One that was to switch over and says why it does not.
bool waits_for_help(const json::object& move) {
  return text_of(move, "outcome") == "running" && move.contains("error") &&
         text_of(move, "step") == "ready";
}

void say_what_next(const json::object& move) {
  const auto job = text_of(move, "job");
  if (text_of(move, "step") == "ready") {
    fmt::print(stderr, "Everything is there and followed. Switch over: pgsled reshard cutover {0}; "
                       "or leave nothing behind: pgsled reshard abort {0}\n", job);
  } else {
    fmt::print(stderr, "The new servers are in use, and the old ones follow. Go back: pgsled "
                       "reshard roll-back {0}; or keep the new ones: pgsled reshard finish {0}, "
                       "then swap the two names in pgdog.toml\n", job);
  }
}

// Shows the events of a job until it is over. None: the replicator is gone, or SIGINT has come.
std::optional<int> watch(control_line& line, const std::string& job,
                         const reshard_options& options) {
  const bool as_json = options.json;
  auto said = line.ask({{"id", 2}, {"request", "reshard-watch"}, {"job", job}});
  std::string shown;
  for (; said; said = line.next()) {
    const auto* event = object_of(*said, "event");
    const auto* over = object_of(*said, "result");
    const auto* move = event != nullptr ? event : over;
    if (move == nullptr) {
      print_error(*said);
      return 1;
    }
    if (as_json) {
      fmt::print("{}\n", json::serialize(*move));
    } else if (auto text = render(*move); text != shown) {
      fmt::print("{}\n", text);
      shown = std::move(text);
    }
    std::fflush(stdout);
    if (over == nullptr && waits_for_word(*move, options.wait)) {
      say_what_next(*move);
      return 0;
    }
    if (over == nullptr && waits_for_help(*move)) return 1;
    if (over == nullptr) continue;
    if (!as_json) {
      print_list(*over, "warnings", "warning");
      print_list(*over, "missing", "missing");
      print_coming(*over);
      advise(*over);
    }
    const auto outcome = text_of(*over, "outcome");
    const auto* missing = array_of(*over, "missing");
    return outcome == "done" || (outcome == "checked" && (missing == nullptr || missing->empty()))
               ? 0 : 1;
  }
  return std::nullopt;
}

}  // namespace

result<std::string> render_move(std::string_view text) {
  json::error_code ec;
  const auto got = json::parse(json::string_view(text.data(), text.size()), ec);
  if (ec || !got.is_object()) return failure("08P01", "the answer has an unknown form");
  return render(got.as_object());
}

int reshard_start(const reshard_options& options) {
  json::object request{{"id", 1},
                       {"request", "reshard-start"},
                       {"kind", options.kind},
                       {"database", options.database},
                       {"dry_run", options.dry_run}};
  if (options.shard >= 0) request["shard"] = options.shard;
  if (!options.to.empty()) {
    request["to"] = options.to;
    request["cutover"] = options.wait ? "wait" : "automatic";
  }
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto started = line->ask(request);
    if (!started) continue;
    const auto* done = object_of(*started, "result");
    if (done == nullptr) {
      print_error(*started);
      return 1;
    }
    const detachable here;
    if (const auto status = watch(*line, text_of(*done, "job"), options)) return *status;
    if (interrupted != 0) return detach();
    fmt::print(stderr, "pgsled reshard: the replicator is gone; the move is gone on with: "
                       "pgsled reshard status --follow\n");
    return 1;
  }
  return nobody();
}

namespace {

// The moves of all processes, the newest last; of this machine's alone when the router is away.
std::optional<std::vector<json::object>> all_moves(const reshard_options& options) {
  std::optional<std::vector<json::object>> all;
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto said = line->ask({{"id", 1}, {"request", "reshard-list"}});
    if (!said) continue;
    const auto* result = object_of(*said, "result");
    const auto* jobs = result != nullptr ? array_of(*result, "jobs") : nullptr;
    if (jobs == nullptr) continue;
    const auto* complete = result->if_contains("complete");
    const bool enough = complete != nullptr && complete->is_bool() && complete->get_bool();
    if (enough || !all) all.emplace();
    for (const auto& one : *jobs) {
      if (one.is_object()) all->push_back(one.as_object());
    }
    if (enough) return all;
  }
  return all;
}

bool under_way(const json::object& move) {
  const auto outcome = text_of(move, "outcome");
  return outcome == "running" || outcome == "waiting";
}

void show(const json::object& move, bool as_json) {
  fmt::print("{}\n", as_json ? json::serialize(move) : render(move));
}

int plain_status(const reshard_options& options) {
  const auto all = all_moves(options);
  if (!all) return nobody();
  for (const auto& one : *all) show(one, options.json);
  return 0;
}

constexpr std::chrono::milliseconds between_looks{400};
constexpr int looks_without_any = 10;   // a move may be between two replicators
constexpr int looks_for_the_first = 5;  // one that has just begun may not know of any yet
constexpr int looks_between_words = 5;  // of an abort
constexpr int looks_for_a_process = 25; // one that is being started again
constexpr int looks_for_a_taker = 150;  // a minute
constexpr int most_looks = 3000;

// Asks whichever replicator answers, so that the death of one ends nothing.
int follow(const reshard_options& options) {
  const detachable here;
  std::map<std::string, std::string> shown;   // by job
  std::string last_outcome = "done";
  for (int quiet = 0; quiet < looks_without_any;) {
    if (interrupted != 0) return detach();
    bool any = false;
    if (const auto all = all_moves(options)) {
      for (const auto& one : *all) {
        const auto job = text_of(one, "job");
        if (!under_way(one) && !shown.contains(job)) continue;
        any = any || under_way(one);
        auto line = options.json ? json::serialize(one) : render(one);
        if (!under_way(one)) last_outcome = text_of(one, "outcome");
        if (line == shown[job]) continue;
        show(one, options.json);
        if (!options.json && !under_way(one)) advise(one);
        shown[job] = std::move(line);
      }
      std::fflush(stdout);
      if (shown.empty() && quiet >= looks_for_the_first) return plain_status(options);
    }
    quiet = any ? 0 : quiet + 1;
    std::this_thread::sleep_for(between_looks);
  }
  if (shown.empty()) return nobody();
  return last_outcome == "done" || last_outcome == "checked" ? 0 : 1;
}

// What came of asking all replicators of the run directory until one passed it on to whoever runs
// the job.
struct told {
  bool done = false, heard = false;
  std::string sqlstate, why;
};

told tell(const reshard_options& options, const std::string& what) {
  told of;
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto said = line->ask({{"id", 1}, {"request", "reshard-" + what}, {"job", options.job}});
    if (!said) continue;
    of.heard = true;
    if (const auto* error = object_of(*said, "error")) {
      of.sqlstate = text_of(*error, "sqlstate");
      of.why = text_of(*error, "message");
    } else if (object_of(*said, "result") != nullptr) {
      of.done = true;
      return of;
    }
  }
  return of;
}

// 0, or the exit status with the reason printed.
int why_not(const told& of) {
  if (of.done) return 0;
  if (!of.heard) return nobody();
  fmt::print(stderr, "pgsled reshard: {}\n", of.why);
  return 1;
}

}  // namespace

int reshard_status(const reshard_options& options) {
  return options.follow ? follow(options) : plain_status(options);
}

// A job whose replicator has just died is taken over within seconds: it is asked for until then,
// and again after that, because who was asked may die as well.
int reshard_abort(const reshard_options& options) {
  told last;
  bool accepted = false, said = false;
  for (int looks = 0, silent = 0, unseen = 0; looks < most_looks; ++looks) {
    if (!accepted || looks % looks_between_words == 0) {
      last = tell(options, "abort");
      accepted = accepted || last.done;
    }
    // Nobody has it, or whoever was asked hears nobody at the moment.
    const bool later = last.heard ? last.sqlstate == "42704" || last.sqlstate.starts_with("57P") ||
                                        last.sqlstate.starts_with("08")
                                  : !control_sockets(options).empty();
    if (!accepted && !later) return why_not(last);
    const auto all = all_moves(options);
    bool listed = false;
    for (const auto& one : all.value_or(std::vector<json::object>())) {
      if (text_of(one, "job") != options.job) continue;
      listed = true;
      if (under_way(one)) continue;
      if (!accepted) return why_not(last);   // it was over before
      show(one, options.json);
      return 0;
    }
    silent = all ? 0 : silent + 1;
    unseen = all && !listed ? unseen + 1 : 0;
    if (!accepted && (silent > looks_for_a_process || unseen > looks_for_the_first ||
                      looks > looks_for_a_taker)) {
      return why_not(last);
    }
    if (!accepted && (listed || !all) && !std::exchange(said, true)) {
      fmt::print(stderr, "pgsled reshard: no replicator runs the move {} at the moment; it is "
                         "aborted as soon as one has taken it over\n", options.job);
    }
    std::this_thread::sleep_for(between_looks);
  }
  return 1;
}

int reshard_act(const reshard_options& options) {
  if (const int failed = why_not(tell(options, options.act))) return failed;
  const detachable here;
  std::string shown;
  bool left = false;   // where it stood when it was asked
  while (interrupted == 0) {
    const auto all = all_moves(options);
    for (const auto& one : all.value_or(std::vector<json::object>())) {
      if (text_of(one, "job") != options.job) continue;
      const auto text = options.json ? json::serialize(one) : render(one);
      if (text != shown) show(one, options.json);
      shown = text;
      std::fflush(stdout);
      const auto outcome = text_of(one, "outcome");
      if (outcome != "running" && outcome != "waiting") {
        if (!options.json) print_list(one, "warnings", "warning");
        const char* wanted = options.act == "roll-back" ? "returned" : "done";
        return outcome == wanted ? 0 : 1;
      }
      left = left || text_of(one, "step") != "reverse";
      if (options.act == "cutover" && waits_for_help(one)) return 1;
      if (options.act == "finish" || !waits_for_word(one, false)) continue;
      if (options.act == "cutover") {
        say_what_next(one);
        return 0;
      }
      if (left) return 1;   // the way back came to nothing: its error was shown
    }
    std::this_thread::sleep_for(between_looks);
  }
  return detach();
}

}  // namespace pgsled::cli
