#include "services/cli/run_dir.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace pgsled::cli {
namespace fs = std::filesystem;
namespace {

// Whether a socket file is left over: nobody accepts on it in any of the ways we use.
bool is_stale(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const int rc = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool refused = rc != 0 && errno == ECONNREFUSED;  // another type of socket: EPROTOTYPE
  ::close(fd);
  return refused;
}

// A directory that was there before is taken over only if it is ours and nobody else's business.
std::string take_over(const fs::path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return "it is not a directory";
  if (info.st_uid != ::geteuid()) return "it belongs to another user";
  if ((info.st_mode & 077) == 0) return {};
  std::error_code ec;
  if (!fs::exists(path / "lock", ec) && !fs::is_empty(path, ec)) {
    return "others may enter it and it is not empty: chmod 700 it, or name another";
  }
  return ::chmod(path.c_str(), 0700) == 0 ? "" : std::strerror(errno);
}

std::string holder(int fd) {
  std::array<char, 32> text{};
  const auto n = ::pread(fd, text.data(), text.size() - 1, 0);
  const auto pid = n > 0 ? std::atol(text.data()) : 0;
  return pid > 0 ? fmt::format("process {}", pid) : "another process";
}

}  // namespace

std::string default_run_dir() {
  if (const char* given = std::getenv("PGSLED_RUN_DIR"); given != nullptr && *given != 0) {
    return given;
  }
  if (::geteuid() == 0) return "/run/pgsled";
  if (const char* base = std::getenv("XDG_RUNTIME_DIR"); base != nullptr && *base == '/') {
    return std::string(base) + "/pgsled";
  }
  return fmt::format("/tmp/pgsled-{}", ::geteuid());
}

result<run_dir> run_dir::open(const std::string& given) {
  std::error_code ec;
  const auto absolute = fs::absolute(given, ec).lexically_normal();
  auto path = absolute.string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  // "<dir>/frontend-99.lease" and the like have to fit into sun_path.
  if (path.size() > 80) {
    return failure("58000", fmt::format("run directory {} is too long: at most 80 bytes", path),
                   "Name a shorter one with --run-dir.");
  }
  fs::create_directories(fs::path(path).parent_path(), ec);
  if (::mkdir(path.c_str(), 0700) != 0) {
    const auto why = errno == EEXIST ? take_over(path) : std::string(std::strerror(errno));
    if (!why.empty()) {
      return failure("58030", fmt::format("run directory {} cannot be used: {}", path, why));
    }
  }
  const auto lock = path + "/lock";
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return failure("58030", fmt::format("{} cannot be opened: {}", lock, std::strerror(errno)));
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const bool held = errno == EWOULDBLOCK;
    const auto why = held ? fmt::format("run directory {} is in use by {}", path, holder(fd))
                          : fmt::format("{} cannot be locked: {}", lock, std::strerror(errno));
    ::close(fd);
    return failure("55006", why);
  }
  const auto pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    const auto why = fmt::format("{} cannot be written: {}", lock, std::strerror(errno));
    ::close(fd);
    return failure("58030", why);
  }
  return run_dir(std::move(path), fd);
}

run_dir::run_dir(run_dir&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

run_dir::~run_dir() {
  if (lock_ >= 0) ::close(lock_);
}

int run_dir::remove_stale_sockets() const {
  int removed = 0;
  std::error_code ec;
  for (const auto& file : fs::directory_iterator(path_, ec)) {
    std::error_code ignored;
    if (file.symlink_status(ignored).type() != fs::file_type::socket) continue;
    if (is_stale(file.path().string()) && fs::remove(file.path(), ignored)) ++removed;
  }
  return removed;
}

}  // namespace pgsled::cli
