#include "common/plan/sharding_ddl.hpp"

#include <algorithm>

#include "common/plan/analysis.hpp"
#include "common/plan/keys.hpp"

namespace pgsled::plan {
namespace {

const char* const change_first =
    "Change sharded_tables first, or do it on the servers by themselves.";

bool same_placement(const sharded_table* one, const sharded_table* other) {
  if (!one || !other) return one == other;
  return one == other || (one->column == other->column && rule_of(*one) == rule_of(*other));
}

std::string described(const sharded_table* entry) {
  return entry ? "sharded by " + in_quotes(entry->column) : "not sharded";
}

std::optional<plan> check_found(const relation& found, const std::string& shown) {
  const auto why = not_certain(found, shown);
  if (!why) return std::nullopt;
  return refused(why->message, why->hint);
}

// `from` becomes `to`: another name, or the same in another schema.
std::optional<plan> check_name(const PgQuery__RangeVar& from, const PgQuery__RangeVar& to,
                               const names& tables) {
  const auto found = tables.find(from);
  if (auto no = check_found(found, shown_name(from))) return no;
  const auto* after = tables.listed(to);
  const std::string schema = text(to.schemaname);
  if (!after && found.table && found.table->name.empty() &&
      (found.table->schema.empty() || schema.empty() || found.table->schema == schema)) {
    after = found.table;   // by its column, whatever its name
  }
  if (same_placement(found.table, after)) return std::nullopt;
  return refused("table " + shown_name(from) + " is " + described(found.table) + " and would be " +
                     described(after) + " as " + shown_name(to) + ", with its rows where they are",
                 change_first);
}

bool names_table(PgQuery__ObjectType type) {
  switch (type) {
    case PG_QUERY__OBJECT_TYPE__OBJECT_TABLE:
    case PG_QUERY__OBJECT_TYPE__OBJECT_VIEW:
    case PG_QUERY__OBJECT_TYPE__OBJECT_MATVIEW:
    case PG_QUERY__OBJECT_TYPE__OBJECT_FOREIGN_TABLE:
    // These words are taken for tables, too.
    case PG_QUERY__OBJECT_TYPE__OBJECT_INDEX:
    case PG_QUERY__OBJECT_TYPE__OBJECT_SEQUENCE:
      return true;
    default:
      return false;
  }
}

std::optional<plan> check_key(const PgQuery__RangeVar& table, const std::string& column,
                              const char* what, const names& tables) {
  const auto found = tables.find(table);
  if (!found.table || column != found.table->column) return std::nullopt;
  return refused(std::string(what) + " column " + in_quotes(column) +
                     ", the sharding key of table " + shown_name(table),
                 change_first);
}

// varchar(n): n, by which a key is cut where it is stored; 0: another type, or no limit.
std::uint32_t varchar_limit(const PgQuery__TypeName* type) {
  if (!type || type->n_typmods != 1 || type->n_array_bounds > 0) return 0;
  const auto parts = name_parts(list(type->n_names, type->names));
  const node* limit = type->typmods[0];
  const bool plain = !parts.empty() && parts.back() == "varchar" &&
                     limit->node_case == PG_QUERY__NODE__NODE_A_CONST &&
                     limit->a_const->val_case == PG_QUERY__A__CONST__VAL_IVAL;
  return plain ? static_cast<std::uint32_t>(std::max(limit->a_const->ival->ival, 0)) : 0;
}

// A key of another type, or computed anew, belongs to another shard than the one where its row is.
std::optional<plan> check_key_type(const PgQuery__RangeVar& table, const std::string& column,
                                   const PgQuery__ColumnDef& to, const names& tables) {
  const auto found = tables.find(table);
  if (!found.table || column != found.table->column) return std::nullopt;
  const auto rule = rule_of(*found.table);
  const bool longer = found.limit > 0 && varchar_limit(to.type_name) >= found.limit;
  const bool same_keys = rule && (longer || key_type_of(to.type_name) == rule->type);
  if (same_keys && !to.raw_default && !to.coll_clause) return std::nullopt;
  return refused("TYPE of column " + in_quotes(column) + ", the sharding key of table " +
                     shown_name(table) + ", would change keys, with their rows where they are",
                 "Without USING it may become smallint, integer or bigint if it is one of them, text "
                 "or varchar without a limit, or a longer one, if it is one of these. Else move the "
                 "rows to a table of the other type.");
}

// A column by whose name alone tables are sharded comes into one that is not.
std::optional<plan> check_new_key(const PgQuery__RangeVar& table, const std::string& column,
                                  const names& tables) {
  const auto found = tables.find(table);
  if (found.table || !tables.sharded_by(text(table.schemaname), column)) return std::nullopt;
  return refused("a column " + in_quotes(column) + " would make table " + shown_name(table) +
                     " a sharded one, with its rows where they are",
                 change_first);
}

// Rows of the child are rows of the parent from then on, or were until then.
std::optional<plan> check_parts(const PgQuery__RangeVar& parent, const PgQuery__RangeVar& child,
                                const names& tables) {
  const relation of = tables.find(parent), part = tables.find(child);
  if (auto no = check_found(of, shown_name(parent))) return no;
  if (auto no = check_found(part, shown_name(child))) return no;
  const bool plain = !of.table && !part.table && of.kind != relation_kind::hidden &&
                     part.kind != relation_kind::hidden;
  if (plain || (of.table && part.table && same_placement(of.table, part.table))) {
    return std::nullopt;
  }
  return refused("table " + shown_name(parent) + " is " + described(of.table) + " and table " +
                     shown_name(child) + " is " + described(part.table) +
                     " by itself, so that one cannot become or cease to be a part of the other",
                 change_first);
}

}  // namespace

std::optional<plan> check_rename(const PgQuery__RenameStmt& s, const database_view& database,
                                 const names& tables) {
  const std::string from = text(s.subname), to = text(s.newname);
  if (s.rename_type == PG_QUERY__OBJECT_TYPE__OBJECT_SCHEMA) {
    for (const auto& table : database.sharded) {
      if (table.schema.empty() || (table.schema != from && table.schema != to)) continue;
      return refused("schema " + in_quotes(table.schema) + " has the sharded table " +
                         in_quotes(table.name.empty() ? "*" : table.name) + " by its name",
                     change_first);
    }
  }
  if (!s.relation) return std::nullopt;
  if (s.rename_type == PG_QUERY__OBJECT_TYPE__OBJECT_COLUMN) {
    if (auto no = check_key(*s.relation, from, "RENAME of", tables)) return no;
    return check_new_key(*s.relation, to, tables);
  }
  if (!names_table(s.rename_type)) return std::nullopt;
  PgQuery__RangeVar renamed = *s.relation;
  renamed.relname = s.newname;
  return check_name(*s.relation, renamed, tables);
}

std::optional<plan> check_new_schema(const PgQuery__AlterObjectSchemaStmt& s,
                                     const database_view& database, const names& tables) {
  if (!s.relation || !names_table(s.object_type)) return std::nullopt;
  const std::string schema = text(s.newschema);
  PgQuery__RangeVar moved = *s.relation;
  moved.schemaname = s.newschema;
  if (auto no = check_name(*s.relation, moved, tables)) return no;
  const bool by_columns =
      std::any_of(database.sharded.begin(), database.sharded.end(), [&](const auto& table) {
        return table.name.empty() && !table.schema.empty() && table.schema == schema;
      });
  if (!by_columns || tables.find(*s.relation).table) return std::nullopt;
  return refused("in schema " + in_quotes(schema) + " table " + shown_name(*s.relation) +
                     " may be sharded by one of its columns",
                 change_first);
}

std::optional<plan> check_sharding(const PgQuery__RangeVar& table,
                                   const PgQuery__AlterTableCmd& command, const names& tables) {
  const node* def = command.def;
  const bool part = def && def->node_case == PG_QUERY__NODE__NODE_PARTITION_CMD;
  switch (command.subtype) {
    case PG_QUERY__ALTER_TABLE_TYPE__AT_DropColumn:
      return check_key(table, text(command.name), "DROP of", tables);
    case PG_QUERY__ALTER_TABLE_TYPE__AT_AlterColumnType:
      if (!def || def->node_case != PG_QUERY__NODE__NODE_COLUMN_DEF) return std::nullopt;
      return check_key_type(table, text(command.name), *def->column_def, tables);
    case PG_QUERY__ALTER_TABLE_TYPE__AT_AddColumn:
      if (!def || def->node_case != PG_QUERY__NODE__NODE_COLUMN_DEF) return std::nullopt;
      return check_new_key(table, text(def->column_def->colname), tables);
    case PG_QUERY__ALTER_TABLE_TYPE__AT_AttachPartition:
    case PG_QUERY__ALTER_TABLE_TYPE__AT_DetachPartition:
    case PG_QUERY__ALTER_TABLE_TYPE__AT_DetachPartitionFinalize:
      if (!part || !def->partition_cmd->name) return std::nullopt;
      return check_parts(table, *def->partition_cmd->name, tables);
    case PG_QUERY__ALTER_TABLE_TYPE__AT_AddInherit:
    case PG_QUERY__ALTER_TABLE_TYPE__AT_DropInherit:
      if (!def || def->node_case != PG_QUERY__NODE__NODE_RANGE_VAR) return std::nullopt;
      return check_parts(*def->range_var, table, tables);
    default:
      return std::nullopt;
  }
}

}  // namespace pgsled::plan
