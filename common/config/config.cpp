#include "common/config/config.hpp"

#include <filesystem>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "common/config/checked.hpp"

namespace pgsled::config {
namespace {

// A file's text, or why there is none.
struct source {
  std::string name;
  std::string_view text;
  std::string failure;
};

void read(checked_file& file, const source& from, std::span<const section> sections,
          findings& found) {
  file.name = from.name;
  if (!from.failure.empty()) {
    found.wrong(from.name, 0, "", from.failure);
  } else if (auto tree = parse_toml(from.text, from.name)) {
    file.root = std::move(*tree);
    file.readable = true;
  } else {
    found.wrong(from.name, tree.error().line, "", "not TOML: " + tree.error().text);
  }
  check(file, sections, found);
}

outcome examine(const source& pgdog_source, const source& users_source, bool open_tls_files) {
  findings found;
  checked_file pgdog, users;
  read(pgdog, pgdog_source, pgdog_sections(), found);
  read(users, users_source, users_sections(), found);
  auto config = assemble(pgdog, users, found);
  cross_check(pgdog, users, config, found);
  if (open_tls_files) check_tls_files(pgdog, found);

  outcome to;
  const auto order = [&](const mistake& a, const mistake& b) {
    if (a.file != b.file) return a.file == pgdog.name;
    return a.line < b.line;
  };
  std::stable_sort(found.mistakes.begin(), found.mistakes.end(), order);
  std::stable_sort(found.warnings.begin(), found.warnings.end(), order);
  to.mistakes = std::move(found.mistakes);
  to.warnings = std::move(found.warnings);
  if (to.mistakes.empty()) to.config = std::move(config);
  return to;
}

std::string slurp(const std::string& path, std::string& failure) {
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  if (stream) {
    char block[65536];
    while (text.size() <= max_toml_bytes) {
      stream.read(block, sizeof block);
      if (stream.gcount() == 0) break;
      text.append(block, static_cast<std::size_t>(stream.gcount()));
    }
  }
  if (!stream.eof() && text.size() <= max_toml_bytes) {
    failure = fmt::format("cannot be read: {}", std::strerror(errno != 0 ? errno : EIO));
  }
  return text;
}

}  // namespace

outcome parse(std::string_view pgdog_text, const std::string& pgdog_name,
              std::string_view users_text, const std::string& users_name) {
  return examine({pgdog_name, pgdog_text, {}}, {users_name, users_text, {}}, false);
}

outcome load(const std::string& pgdog_toml, const std::string& users_toml) {
  std::string pgdog_failure, users_failure;
  const auto pgdog = slurp(pgdog_toml, pgdog_failure);
  const auto users = slurp(users_toml, users_failure);
  auto read = examine({pgdog_toml, pgdog, pgdog_failure}, {users_toml, users, users_failure}, true);
  if (read.config) {
    auto& g = read.config->general;
    for (const auto* file : {&g.tls_certificate, &g.tls_private_key, &g.tls_server_ca_certificate,
                             &g.tls_server_certificate, &g.tls_server_private_key}) {
      std::error_code absent;
      const auto when = std::filesystem::last_write_time(*file, absent);
      if (!absent)
        g.tls_modified = g.tls_modified * 31 + when.time_since_epoch().count() % 1'000'000'007;
    }
  }
  return read;
}

std::string format(const std::vector<mistake>& mistakes) {
  std::string all;
  for (const auto& one : mistakes) {
    all += one.file;
    if (one.line > 0) all += fmt::format(":{}", one.line);
    if (!one.key.empty()) all += ": " + one.key;
    all += ": " + one.text + "\n";
  }
  return all;
}

}  // namespace pgsled::config
