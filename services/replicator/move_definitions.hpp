#pragma once
// move_definitions: what a database defines besides its tables' columns, which no stream tells
// of: functions, triggers, indexes, constraints, views, sequences, defaults, policies, types, and the
// rights of those who are no superusers. Reads only. Thread rule: the connection's.

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

// What would make rows, or clients, fare otherwise on another shard: what it lacks, has otherwise, or
// does to rows by itself alone. Not indexes, which are known by other things than their names, nor the
// numbers of a sequence, which each shard has for itself. `printed_alike`: servers of one version
// write equal definitions alike; of two they may not.
struct unlike {
  std::vector<std::string> wrong, perhaps;
};
unlike unlike_there(const definitions& here, const definitions& there, bool printed_alike);

}  // namespace pgsled::replicator
