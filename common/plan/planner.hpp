#pragma once
// planner: statement tree + what the database looks like → plan. Knows SQL, no I/O, no clock.
// Exact or refused: whatever it cannot prove to be right on one shard gets 0A000 with the names
// of the tables and the missing key.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/plan/plan.hpp"

namespace pgsled::plan {

struct sharded_table {
  std::string schema, name, column, data_type;  // schema and name may be empty: any
  placement::hasher hasher = placement::hasher::postgres;
  std::uint64_t mapping = 0;                    // as in placement::rule
  bool operator==(const sharded_table&) const = default;
};
// Nothing: a data_type that this version cannot place.
std::optional<placement::rule> rule_of(const sharded_table&);

// What the shards' catalogs say; loaded by the router and refreshed after DDL. That of shard 0, with
// what others say otherwise.
struct catalog {
  bool loaded = false;                       // false: views and functions are unknown
  std::set<std::string> hides_sharded;       // "schema.name" of views, matviews, foreign and child
                                             // tables through which sharded tables are read
  std::set<std::string> namesakes;           // "schema.name" of other relations of such a name
  std::set<std::string> safe_functions;  // names that can be called on any shard: built in or in C
  // Names that give the same for the same arguments, whatever the shard and the moment.
  std::set<std::string> immutable_functions;
  struct column_type {
    std::string name;                        // of the type under all domains: "int8"; with its
                                             // schema when that is not pg_catalog
    std::uint32_t limit = 0;                 // varchar(n): n; 0: none
    bool by_bytes = true;                    // equal texts are equal bytes: the collation is
                                             // deterministic, or there is none
    bool operator==(const column_type&) const = default;
  };
  struct table_columns {
    std::string schema, name;
    std::vector<std::string> columns;
    std::vector<column_type> types = {};     // of each column; empty: not known
    // Columns that are others on another shard, with how: "is missing on shard 1".
    std::map<std::string, std::string> differs = {};
    bool ordered = true;                     // the columns are in this order on all shards
  };
  std::vector<table_columns> tables;  // of sharded tables: column order for INSERT without list
  // search_path of connections of a role as it is without a word of the client, as SQL text or
  // unknown_path; of role "": of all that are not named.
  std::map<std::string, std::string> paths;
  std::vector<std::string> key_triggers;  // that may give a row another key than its INSERT says,
                                          // for people
  // A foreign key takes what statements do to this table along to a sharding key.
  struct followed_column {
    std::string schema, table;
    std::string column;                      // that is changed; empty: a row that is deleted
    std::string foreign_key, of;             // for people; schema.name of the sharded table
  };
  std::vector<followed_column> followed;
  std::string path_of(const std::string& role) const;
};

struct database_view {
  std::string name;
  std::uint32_t shards = 1;
  std::vector<pgsled::plan::sharded_table> sharded;
  std::map<std::string, std::string> roles;  // of users who are others on the servers
  pgsled::plan::catalog catalog;
};

// A request without a tree is one whose syntax the parser does not know: refused.
answer make_plan(const request&, const database_view&, std::uint64_t epoch);

}  // namespace pgsled::plan
