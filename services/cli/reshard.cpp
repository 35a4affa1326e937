#include "services/cli/reshard.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
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

std::string render(const json::object& move) {
  const auto outcome = text_of(move, "outcome");
  auto line = fmt::format("{} {}: {}", text_of(move, "database"), text_of(move, "job"),
                          outcome == "running" ? text_of(move, "step") : outcome);
  if (const auto buckets = number_of(move, "buckets"); buckets != 0) {
    line += fmt::format(", {} of {} buckets to shard {}", number_of(move, "moving"), buckets,
                        number_of(move, "destination"));
  }
  if (const auto rows = number_of(move, "rows"); rows != 0) {
    line += fmt::format(", {} rows ({} bytes) copied", rows, number_of(move, "bytes"));
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
  return line;
}

void print_list(const json::object& move, const char* key, const char* label) {
  const auto* list = array_of(move, key);
  if (list == nullptr) return;
  for (const auto& one : *list) {
    if (one.is_string()) fmt::print(stderr, "{}: {}\n", label, std::string(one.as_string()));
  }
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

// Shows the events of a job until it is over. None: the replicator is gone.
std::optional<int> watch(control_line& line, const std::string& job, bool as_json) {
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
    if (over == nullptr) continue;
    if (!as_json) {
      print_list(*over, "warnings", "warning");
      print_list(*over, "missing", "missing");
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

int add_shard(const reshard_options& options) {
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto started = line->ask({{"id", 1},
                                    {"request", "reshard-start"},
                                    {"kind", "add-shard"},
                                    {"database", options.database},
                                    {"dry_run", options.dry_run}});
    if (!started) continue;
    const auto* done = object_of(*started, "result");
    if (done == nullptr) {
      print_error(*started);
      return 1;
    }
    if (const auto status = watch(*line, text_of(*done, "job"), options.json)) return *status;
    fmt::print(stderr, "pgsled reshard: the replicator is gone; the move is gone on with: "
                       "pgsled reshard status\n");
    return 1;
  }
  return nobody();
}

int reshard_status(const reshard_options& options) {
  bool heard = false;
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto said = line->ask({{"id", 1}, {"request", "reshard-list"}});
    if (!said) continue;
    const auto* result = object_of(*said, "result");
    const auto* jobs = result != nullptr ? array_of(*result, "jobs") : nullptr;
    if (jobs == nullptr) continue;
    heard = true;
    for (const auto& one : *jobs) {
      if (!one.is_object()) continue;
      fmt::print("{}\n", options.json ? json::serialize(one) : render(one.as_object()));
    }
  }
  return heard ? 0 : nobody();
}

int reshard_abort(const reshard_options& options) {
  bool heard = false;
  for (const auto& path : control_sockets(options)) {
    auto line = control_line::open(path);
    if (!line) continue;
    const auto said =
        line->ask({{"id", 1}, {"request", "reshard-abort"}, {"job", options.job}});
    if (!said) continue;
    heard = true;
    if (object_of(*said, "result") == nullptr) continue;   // another's
    return watch(*line, options.job, options.json) ? 0 : 1;
  }
  if (!heard) return nobody();
  fmt::print(stderr, "pgsled reshard: no replicator runs the move {}\n", options.job);
  return 1;
}

}  // namespace pgsled::cli
