#pragma once
// definitions: what a database defines besides its tables' columns, which no stream tells
// of: functions, triggers, indexes, constraints, views, sequences, defaults, policies, types, and the
// rights of those who are no superusers. Reads only. Thread rule: the connection's.

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/management/connection.hpp"

namespace pgsled::replicator {

struct defined {
  std::string digest;      // of the definition as the server writes it
  std::string loose;       // of the same, written loosely()
  std::string table = {};  // "schema.name" of what it belongs to
  std::string role = {};   // of a right: who has it, as SQL or PUBLIC
  bool of_owner = false;   // who has it because it is theirs
};
// SQL of a text, given as SQL, without what a dump and its restore may write otherwise: casts,
// brackets, spaces.
std::string loosely(std::string_view text);

// By what it is and its name.
using definitions = std::map<std::string, defined>;

// Of extensions, of the system and of pgsled nothing.
result<definitions> read_definitions(management::connection&);
// Another one whenever a definition was touched, and cheap: by what the catalog's rows were written
// last. The same: the definitions are the same.
result<std::string> definitions_stamp(management::connection&);
// "function public.f(integer) was made", "… was changed", "… was dropped".
std::vector<std::string> differences(const definitions& before, const definitions& now);

// By name as SQL, and PUBLIC: whether it is a superuser.
result<std::map<std::string, bool>> read_roles(management::connection&);

struct other_shard {
  definitions all;
  std::map<std::string, bool> roles;
  std::set<std::string> tables;   // that are compared
};
struct unlike {
  std::vector<std::string> wrong, perhaps;
};
// What would make rows, or clients, fare otherwise on another shard: what its tables lack, have
// otherwise, or have for themselves alone; the rights of roles that are there. Not indexes, which are
// known by other things than their names, nor the numbers of a sequence, which each shard has for
// itself. `printed_alike`: servers of one version write equal definitions alike; of two they may not.
unlike unlike_there(const definitions& here, const other_shard& there, bool printed_alike);

}  // namespace pgsled::replicator
