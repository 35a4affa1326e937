#include "services/cli/keys.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/bus/peer.hpp"
#include "common/net/socket.hpp"

namespace pgsled::cli {
namespace {

// What went wrong; empty: nothing.
std::string write_new(const std::string& path, const std::string& key, unsigned mode) {
  const net::unique_fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  const auto line = key + "\n";
  if (fd.get() >= 0 &&
      ::write(fd.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
      ::fsync(fd.get()) == 0) {
    return {};
  }
  return fmt::format("could not write {}: {}", path, std::strerror(errno));
}

}  // namespace

int make_keys(const std::string& path) {
  const auto pair = bus::make_curve_pair();
  // The secret first: without it the other is of no use.
  auto problem = write_new(path + ".secret", pair.secret_key, 0600);
  if (problem.empty()) problem = write_new(path + ".public", pair.public_key, 0644);
  if (problem.empty()) return 0;
  fmt::print(stderr, "pgsled keys: {}\n", problem);
  return 2;
}

}  // namespace pgsled::cli
