#pragma once
// cluster_definitions: what a database defines besides its tables' columns, which no stream tells
// of: functions, triggers, indexes, constraints, views, sequences, defaults, policies, types. Reads
// only. Thread rule: the connection's.

#include <map>
#include <string>
#include <vector>

#include "common/management/connection.hpp"

namespace pgsled::replicator {

// By what it is and its name: a digest of its definition.
using definitions = std::map<std::string, std::string>;

// Of extensions, of the system and of pgsled nothing.
result<definitions> read_definitions(management::connection&);
// Another one whenever a definition was touched, and cheap: by what the catalog's rows were written
// last. The same: the definitions are the same.
result<std::string> definitions_stamp(management::connection&);
// "function public.f(integer) was made", "… was changed", "… was dropped".
std::vector<std::string> differences(const definitions& before, const definitions& now);

}  // namespace pgsled::replicator
