#include "services/router/login_seed.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "common/auth/scram.hpp"
#include "common/log/log.hpp"
#include "common/net/socket.hpp"

namespace pgsled::router {
namespace {

constexpr std::size_t digits = 64;

bool keep(const std::string& path, const std::string& seed) {
  const auto fresh = path + ".new";
  ::unlink(fresh.c_str());
  const net::unique_fd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  return fd && ::write(fd.get(), seed.data(), seed.size()) == static_cast<ssize_t>(seed.size()) &&
         ::rename(fresh.c_str(), path.c_str()) == 0;
}

}  // namespace

std::string login_seed(const std::string& run_dir) {
  const auto path = run_dir + "/login_seed";
  std::string seed;
  std::getline(std::ifstream(path), seed);
  if (seed.size() == digits) return seed;
  seed.clear();
  for (const char byte : auth::random_bytes(digits / 2)) {
    seed += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  if (!keep(path, seed)) {
    log::warn("router", "{} cannot be written ({}): salts of log-ins change with the next router",
              path, std::strerror(errno));
  }
  return seed;
}

}  // namespace pgsled::router
