#pragma once
// rights: what the role that moves rows may not do on a shard but has to, asked of the server
// right by right: neither a superuser nor the administrator of a managed service is needed as such.
// Reads only. Thread rule: the runner's thread.

#include <string>
#include <vector>

#include "services/replicator/move/scene.hpp"

namespace pgsled::replicator {

struct shard_roles {
  bool source = false, destination = false;
  bool resumes = false;   // goes on with the origins of a runner that is gone
};
// Each with the statement that grants it. Whose the tables are is asked with the tables themselves.
result<std::vector<std::string>> missing_rights(management::connection&, const move_scene&,
                                                shard_number, const shard_roles&);

}  // namespace pgsled::replicator
