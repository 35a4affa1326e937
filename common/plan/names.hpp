#pragma once
// Which table a name in a statement means: sharded, omnisharded (present on every shard), system
// catalog, or something that must not be read without care. Internal to the planner. Pure.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/plan/planner.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

std::string in_quotes(std::string_view identifier);            // "…" always, for messages
std::string sql_identifier(std::string_view identifier);       // quotes only where needed
std::string written_name(const PgQuery__RangeVar&);            // schema.name as sql_identifier
std::string shown_name(const PgQuery__RangeVar&);              // "schema.name", for messages

enum class relation_kind : std::uint8_t {
  sharded,
  omni,     // on every shard, the same rows
  system,   // each shard's own
  hidden,   // a view, foreign or child table through which sharded tables are read
  unknown,  // may be sharded: the catalog is not loaded
  ambiguous,  // search_path decides, and is not known
  unplaceable,  // sharded by a key that cannot be placed; `why` says why
};

struct relation {
  relation_kind kind = relation_kind::omni;
  const sharded_table* table = nullptr;                    // sharded
  const catalog::table_columns* columns = nullptr;         // sharded, if the catalog has them
  placement::rule rule = {};                               // sharded
  std::uint32_t limit = 0;                                 // sharded: of the key's column
  std::string why = {}, hint = {};                         // unplaceable
};

// Why a statement cannot go by it, `shown` being its name; nothing: it can.
std::optional<pg_error> not_certain(const relation&, const std::string& shown);

class names {
 public:
  // Keeps references to both.
  names(const database_view& database, const request& from);
  relation find(const PgQuery__RangeVar&) const;
  // No schema of search_path comes before pg_catalog: operators without a schema are PostgreSQL's.
  bool has_usual_operators() const;
  // The entry that names such a table, whether there is one or not.
  const sharded_table* listed(const PgQuery__RangeVar&) const;
  // By which foreign key a sharding key follows this column; without a column: the rows themselves.
  const catalog::followed_column* followed(const PgQuery__RangeVar&,
                                           const std::string& column = {}) const;
  // Is what gets no schema made in the temporary one of its connection, perhaps?
  bool temporary_in_path() const;
  // Does an entry without a table shard every table with such a column?
  bool sharded_by(const std::string& schema, const std::string& column) const;

 private:
  relation find_in(const std::string& schema, const std::string& name) const;
  relation find_anywhere(const std::string& name) const;
  std::set<std::string> schemas_with(const std::string& name) const;
  bool in_path(std::string_view schema) const;
  bool is_schema(const std::string& wanted, const std::string& written) const;
  const sharded_table* by_name(const std::string& schema, const std::string& name) const;
  const sharded_table* by_column(const catalog::table_columns&) const;
  const catalog::table_columns* columns_of(const std::string& schema,
                                           const std::string& name) const;
  bool hides(const std::string& schema, const std::string& name) const;
  relation placed(const sharded_table&, const catalog::table_columns*) const;

  const database_view& database_;
  std::optional<std::vector<std::string>> path_;   // nothing: not known
  bool path_of_role_ = false;                      // and not one that the client has set
  bool any_name_ = false;  // some sharded column counts in whatever table it is
};

}  // namespace pgsled::plan
