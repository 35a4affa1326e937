#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "common/app/app.hpp"

namespace pgsled::app {
namespace {

std::string read_key(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string key;
  if (!(file >> key)) throw std::runtime_error("could not read the CURVE key " + path.string());
  constexpr std::size_t z85_length = 40;
  if (key.size() != z85_length)
    throw std::runtime_error("the CURVE key " + path.string() + " is not 40 characters of Z85");
  return key;
}

void check_pair(const bus::curve_keys& keys, const std::filesystem::path& path) {
  if (bus::curve_public(keys.secret_key) != keys.public_key)
    throw std::runtime_error("the CURVE keys " + path.string() +
                             ".secret and .public do not belong together");
}

}  // namespace

bus::curve_keys load_curve(const std::string& directory) {
  if (directory.empty()) return {};
  const std::filesystem::path in(directory);
  bus::curve_keys keys{read_key(in / "client.public"), read_key(in / "client.secret"),
                       read_key(in / "server.public")};
  check_pair(keys, in / "client");
  return keys;
}

bus::curve_keys load_curve_server(const std::string& directory) {
  if (directory.empty()) return {};
  const std::filesystem::path in(directory);
  bus::curve_keys keys{read_key(in / "server.public"), read_key(in / "server.secret"), {}};
  keys.server_public_key = keys.public_key;
  check_pair(keys, in / "server");
  return keys;
}

std::vector<std::string> load_curve_clients(const std::string& directory) {
  std::vector<std::string> keys;
  if (directory.empty()) return keys;
  const std::filesystem::path in(directory);
  if (std::filesystem::exists(in / "client.public")) keys.push_back(read_key(in / "client.public"));
  if (std::filesystem::is_directory(in / "clients"))
    for (const auto& entry : std::filesystem::directory_iterator(in / "clients"))
      if (entry.path().extension() == ".public") keys.push_back(read_key(entry.path()));
  return keys;
}

std::string host_identity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  file >> boot;
  std::array<char, 64> space{};
  const auto n = ::readlink("/proc/self/ns/net", space.data(), space.size() - 1);
  return boot + "/" + std::string(space.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
}

bool same_machine(std::string_view one_identity, std::string_view other) {
  const auto boot = one_identity.substr(0, one_identity.find('/'));
  return !boot.empty() && boot == other.substr(0, other.find('/'));
}

std::string random_id() {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number) std::abort();
  return fmt::format("{:016x}", number);
}

}  // namespace pgsled::app
