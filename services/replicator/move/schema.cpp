#include "services/replicator/move/schema.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include "common/net/socket.hpp"

extern char** environ;

namespace pgsled::replicator {

namespace {

constexpr std::size_t longest_script = 64u << 20, longest_complaint = 64u << 10;
constexpr std::chrono::milliseconds long_wait{600'000};

// The oldest of Debian's packages that is not older than the server, because newer ones write what
// older servers do not know; else whatever PATH names, which refuses by itself when it is older.
std::string fitting_pg_dump(const std::string& configured, int server) {
  std::string found = configured;
  if (configured != "pg_dump") return found;   // chosen; refuses by itself when it is older
  int best = 0;
  std::error_code ec;
  for (const auto& one : std::filesystem::directory_iterator("/usr/lib/postgresql", ec)) {
    const auto name = one.path().filename().string();
    int version = 0;
    std::from_chars(name.data(), name.data() + name.size(), version);
    if (version < server || (best != 0 && version >= best)) continue;
    if (!std::filesystem::exists(one.path() / "bin/pg_dump", ec)) continue;
    best = version;
    found = one.path() / "bin/pg_dump";
  }
  return found;
}

std::string ssl_mode(const std::string& tls) {
  if (tls == "disabled") return "disable";
  if (tls == "verify_ca") return "verify-ca";
  if (tls == "verify_full") return "verify-full";
  return "prefer";
}

struct pipe_ends {
  net::unique_fd read, write;
};
pipe_ends make_pipe() {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {};
  return {net::unique_fd(ends[0]), net::unique_fd(ends[1])};
}

std::vector<char*> pointers(std::vector<std::string>& from) {
  std::vector<char*> to;
  for (auto& one : from) to.push_back(one.data());
  to.push_back(nullptr);
  return to;
}

struct said {
  std::string out, err;
  int status = -1;
};

// Runs a program to its end, or kills it.
result<said> run(std::vector<std::string> arguments, std::vector<std::string> more_environment,
                 const std::atomic<bool>& stop) {
  auto out = make_pipe(), err = make_pipe();
  if (!out.read || !err.read) return failure("53000", "no pipe for pg_dump");
  std::vector<std::string> environment = std::move(more_environment);
  for (char** one = environ; *one != nullptr; ++one) {
    if (!std::string_view(*one).starts_with("PG")) environment.emplace_back(*one);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.write.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, err.write.get(), 2);
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, arguments.front().c_str(), &actions, nullptr,
                                    pointers(arguments).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    return failure("58P01", fmt::format("{} cannot be run", arguments.front()),
                   "Install the client programs of PostgreSQL.");
  }
  out.write.reset();
  err.write.reset();
  said got;
  bool killed = false;
  std::array<char, 64 * 1024> piece;
  while (out.read || err.read) {
    std::array<pollfd, 2> both{pollfd{out.read ? out.read.get() : -1, POLLIN, 0},
                               pollfd{err.read ? err.read.get() : -1, POLLIN, 0}};
    ::poll(both.data(), both.size(), 100);
    if (!killed && (stop || got.out.size() > longest_script)) {
      ::kill(pid, SIGKILL);
      killed = true;
    }
    const auto take = [&](const pollfd& one, net::unique_fd& from, std::string& to,
                          std::size_t most) {
      if (one.revents == 0) return;
      const auto n = ::read(from.get(), piece.data(), piece.size());
      if (n <= 0) return from.reset();
      if (to.size() <= most) to.append(piece.data(), static_cast<std::size_t>(n));
    };
    take(both[0], out.read, got.out, longest_script);
    take(both[1], err.read, got.err, longest_complaint);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  got.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  if (killed) return failure("57014", "pg_dump was ended: stopped, or its output is too long");
  return got;
}

}  // namespace

std::string without_psql_commands(std::string_view script) {
  std::string to;
  while (!script.empty()) {
    const auto line = script.substr(0, script.find('\n'));
    const bool last = line.size() == script.size();
    const bool command = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    if (!command) {
      to += line;
      if (!last) to += '\n';
    }
    script.remove_prefix(line.size() + (last ? 0 : 1));
  }
  return to;
}

trouble copy_schema(move_scene& scene, shard_number from, shard_number to) {
  const auto version =
      one_value(scene.link(from), "SELECT current_setting('server_version_num')::int / 10000");
  if (!version) return version.error();
  const auto& at = scene.where.shards.at(from);
  std::vector<std::string> environment{"PGPASSWORD=" + at.password, "PGAPPNAME=pgsled schema",
                                       "PGSSLMODE=" + ssl_mode(scene.where.tls.mode)};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) environment.push_back(name + ("=" + value));
  };
  add("PGSSLROOTCERT", scene.where.tls.ca_certificate);
  add("PGSSLCERT", scene.where.tls.certificate);
  add("PGSSLKEY", scene.where.tls.private_key);
  const auto program = fitting_pg_dump(scene.where.manner.pg_dump, std::stoi(*version));
  const auto by_hand = fmt::format(
      "Set pg_dump_path in [replication] to one of PostgreSQL {} or later, or copy the definitions "
      "to shard {} by hand:  pg_dump --schema-only -N pgsled -h {} -p {} -U {} {}", *version, to,
      at.host, at.port, at.user, at.database);
  const auto dump = run({program, "--schema-only", "--no-password",
                         "--no-publications", "--no-subscriptions", "--exclude-schema=pgsled",
                          "--encoding=UTF8",
                         "--host=" + at.host, "--port=" + std::to_string(at.port),
                         "--username=" + at.user, "--dbname=" + at.database},
                        environment, *scene.stop);
  if (!dump) {
    auto error = dump.error();
    if (error.sqlstate == "58P01") error.hint = by_hand;
    return error;
  }
  if (dump->status != 0) {
    return pg_error{"58000", fmt::format("{} of shard {} failed: {}", program, from, dump->err),
                    by_hand, {}};
  }
  auto link = scene.open(to, long_wait);
  if (!link) return link.error();
  return execute(*link, without_psql_commands(dump->out));
}

}  // namespace pgsled::replicator
