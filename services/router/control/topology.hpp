#pragma once
// topology: the pools, users and databases that a configuration means, before anybody serves
// them. Pure apart from the verifier book it fills.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/management/connection.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/router/control/verifiers.hpp"

namespace pgsled::router {

// Ids come from a hash of what they name, so that a new router gives the same ones: frontends and
// poolers go on using leases they took under the old one.
class pool_ids {
 public:
  std::uint32_t id(const std::string& user, const std::string& database, std::uint32_t shard,
                   const config::database& host);

 private:
  std::map<std::string, std::uint32_t> by_key_;
  std::map<std::uint32_t, std::string> by_id_;
};

struct pool_definition {
  snapshot::server_pool server;     // budget and min_size are those of the whole suite
  std::string pooler_mode;
  bool schema_admin = false;
  bool resharding_only = false;     // the suite's own work only
};

struct database_definition {
  std::string name;
  std::uint32_t shards = 1;
  bool sharded = false;
  bool resharding_only = false;     // no client may log in to it
  std::vector<snapshot::sharded_table> tables;
};

struct topology {
  std::vector<pool_definition> pools;
  std::vector<database_definition> databases;   // without the admin database
  std::vector<snapshot::user> users;            // with the admin user
  std::string admin_database;
};

topology make_topology(const config::configuration&, pool_ids&, verifier_book&);

// How many shards the file gives a database; 0: none is known by that name.
std::uint32_t shards_of(const config::configuration&, const std::string& database);

// The server that stands for a shard: its primary, else the first that is not a replica.
const config::database* shard_host(const config::configuration&, const std::string& database,
                                   std::uint32_t shard);

// How management connections reach one shard: as the schema_admin user, else the first user.
// In shard order; empty when a shard has no host or no user is known.
std::vector<management::address> shard_addresses(const topology&, const std::string& database);

}  // namespace pgsled::router
