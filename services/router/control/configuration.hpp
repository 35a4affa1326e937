#pragma once
// Reading the two configuration files on behalf of the router: at start and at RELOAD.

#include <optional>
#include <string>
#include <vector>

#include "common/config/config.hpp"

namespace pgsled::router {

// At start: all mistakes on standard error, then nullopt.
std::optional<config::configuration> load_or_report(const std::string& pgdog_toml,
                                                    const std::string& users_toml);
// Somebody's transactions commit over several shards in two phases.
bool commits_in_two_phases(const config::configuration&);
// One warning line for the given keys that this version does not act on; empty when there are none.
std::string unacted_line(const config::configuration&);

}  // namespace pgsled::router
