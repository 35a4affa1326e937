#include "services/router/control/configuration.hpp"

#include <algorithm>
#include <cstdio>

namespace pgsled::router {

std::optional<config::configuration> load_or_report(const std::string& pgdog_toml,
                                                    const std::string& users_toml) {
  auto outcome = config::load(pgdog_toml, users_toml);
  if (outcome.config) return std::move(outcome.config);
  const std::string text = config::format(outcome.mistakes);
  std::fputs(text.c_str(), stderr);
  if (!text.empty() && text.back() != '\n') std::fputc('\n', stderr);
  return std::nullopt;
}

bool commits_in_two_phases(const config::configuration& config) {
  return config.pgsled.cross_shard_writes == "atomic" &&
         (config.general.two_phase_commit || config.general.two_phase_commit_auto.value_or(false) ||
          std::any_of(config.users.begin(), config.users.end(), [](const auto& one) {
            return one.two_phase_commit.value_or(false) ||
                   one.two_phase_commit_auto.value_or(false);
          }));
}

std::string unacted_line(const config::configuration& config) {
  if (config.unacted.empty()) return {};
  std::string line = "these settings are checked but not acted on by this version: ";
  for (std::size_t i = 0; i < config.unacted.size(); ++i) {
    if (i != 0) line += ", ";
    line += config.unacted[i];
  }
  return line;
}

}  // namespace pgsled::router
