#pragma once
// move_rights: what the role that moves rows may not do on a shard but has to, asked of the server
// right by right: neither a superuser nor the administrator of a managed service is needed as such.
// Reads only. Thread rule: the runner's thread.

#include <string>
#include <vector>

#include "services/replicator/move_scene.hpp"

namespace pgsled::replicator {

// Each with the statement that grants it. Whose the tables are is asked with the tables themselves.
result<std::vector<std::string>> missing_rights(move_scene&, shard_number);

}  // namespace pgsled::replicator
