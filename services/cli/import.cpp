#include "services/cli/import.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "common/config/config.hpp"
#include "common/net/socket.hpp"
#include "services/cli/pgbouncer.hpp"
#include "services/cli/pgbouncer_files.hpp"

namespace pgsled::cli {
namespace {

int refuse(const std::string& why) {
  fmt::print(stderr, "pgsled import: {}\n", why);
  return 2;
}

std::optional<std::string> content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (file.bad()) return std::nullopt;
  return text;
}

// Empty: done.
std::string write_new(const std::string& path, const std::string& text) {
  const net::unique_fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return {};
  }
  return fmt::format("could not write {}: {}", path, std::strerror(errno));
}

std::string auth_file_of(const std::string& ini, const std::string& path) {
  std::string found;
  for (const auto& line : read_ini(ini, [](std::size_t, std::string_view) {})) {
    if (line.section == "pgbouncer" && line.key == "auth_file") found = line.value;
  }
  // As the ini names it; a relative one stands beside it more often than where this is run.
  if (found.empty() || found.front() == '/' || std::filesystem::exists(found)) return found;
  return (std::filesystem::path(path).parent_path() / found).string();
}

}  // namespace

int import_files(const import_options& options) {
  for (const auto& path : {options.pgdog, options.users}) {
    if (std::filesystem::exists(path)) return refuse(path + " exists already; remove it first");
  }
  pgbouncer_files from{{}, options.ini, {}, options.userlist};
  const auto ini = content_of(options.ini);
  if (!ini) return refuse(fmt::format("{} cannot be read: {}", options.ini, std::strerror(errno)));
  from.ini = *ini;
  if (from.userlist_name.empty()) from.userlist_name = auth_file_of(*ini, options.ini);
  if (!from.userlist_name.empty()) {
    const auto userlist = content_of(from.userlist_name);
    if (!userlist) {
      return refuse(fmt::format("{} cannot be read: {}", from.userlist_name,
                                std::strerror(errno)));
    }
    from.userlist = *userlist;
  }
  const auto made = import_pgbouncer(from);
  for (const auto& mistake : made.mistakes) fmt::print(stderr, "{}\n", mistake);
  if (!made.mistakes.empty()) return refuse("nothing was written");
  auto problem = write_new(options.pgdog, made.pgdog);
  if (problem.empty()) problem = write_new(options.users, made.users);
  if (!problem.empty()) return refuse(problem);
  for (const auto& note : made.notes) fmt::print(stderr, "{}\n", note);
  fmt::print("wrote {} and {}\n", options.pgdog, options.users);
  const auto checked = config::load(options.pgdog, options.users);
  if (checked.mistakes.empty()) return 0;
  fmt::print(stderr, "before they can be used:\n{}", config::format(checked.mistakes));
  return 1;
}

}  // namespace pgsled::cli
