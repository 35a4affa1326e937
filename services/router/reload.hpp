#pragma once
// reload: why a file that is right by itself cannot replace the one in force: rows or transactions
// would be left where nobody looks for them. Thread rule: the router's.

#include <string>

#include "common/config/config.hpp"

namespace pgsled::router {

class commit_service;
class control;
class names_service;

std::string reload_objection(const control&, const names_service&, const commit_service&,
                             const config::configuration& next);   // empty: nothing

}  // namespace pgsled::router
