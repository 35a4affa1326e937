#pragma once
// tables: the tables of one server database that rows can move into or out of, read from its
// catalog, and how the file places their rows. Thread rule: the connection's.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/management/connection.hpp"
#include "common/moving/table.hpp"
#include "common/snapshot/move.hpp"

namespace pgsled::replicator {

struct found_table {
  moving::table it;
  std::string oid, kind, persistence;
  std::string file;                    // another one when the table was written anew
  std::string top_schema, top_name;    // of a partition: the table that is partitioned
  std::string owner;                   // whose rights the role does not have; empty: it has
  std::string identity;                // pg_class.relreplident
  bool inherits = false, always = false, secured = false;
  bool computes = false;               // has generated columns
  // Whether its old rows are in the log as its identity is.
  bool known_as_it_is() const {
    return identity == "d" && it.known_by_primary();
  }
  bool key_deterministic = true;
  std::vector<std::string> generated;  // columns that the log does not have
  bool partitioned() const { return kind == "p"; }   // its rows are in its partitions
  std::string shape;                   // all columns as text: equal on shards that have the same
};
using found_tables = std::map<std::string, found_table>;   // by label

// Tables that are partitioned, and partitions, are among them; those of extensions, of the system
// and of schema pgsled are not.
result<found_tables> read_tables(management::connection&, const std::vector<snapshot::move_table>&);

bool is_generated(const found_table&, const std::string& column);
// The entry of the file that places the rows of a table; none: they are on every shard.
const snapshot::move_table* rule_of(const found_table&, const std::vector<snapshot::move_table>&);

// How it does. `digest`: of pgcrypto, where the rows are.
moving::placing placing_of(const snapshot::move_table&, const std::string& digest);
bool by_sha1(const snapshot::move_table&);
// The function of pgcrypto, as SQL; empty: the extension is not there.
result<std::string> digest_of(management::connection&);

// Whether a column of this type can be a sharding key of that one.
bool holds_keys(std::string_view column, placement::key_type);

// Of string_agg() by U&'\001f'.
std::vector<std::string> split_names(std::string_view);

}  // namespace pgsled::replicator
