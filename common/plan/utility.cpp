#include "common/plan/utility.hpp"

#include <algorithm>

#include "common/plan/analysis.hpp"
#include "common/plan/copy_statement.hpp"
#include "common/plan/sequences.hpp"
#include "common/plan/sharding_ddl.hpp"
#include "common/plan/steady.hpp"

namespace pgsled::plan {
namespace {

plan any_shard(access wanted = access::read) {
  plan p;
  p.destination = destination::any_shard;
  p.access = wanted;
  return p;
}

plan all_shards(bool changes_catalog, bool own_transaction = false) {
  plan p;
  p.destination = destination::all_shards;
  p.access = access::write;
  p.changes_catalog = changes_catalog;
  p.own_transaction = own_transaction;
  return p;
}

plan ddl(bool own_transaction = false) { return all_shards(true, own_transaction); }

// What cannot be taken back on the shards where it has run, and matters there.
plan not_together() {
  return refused("this statement cannot run inside a transaction block and so not on all shards "
                 "together", "Run it on each shard directly.");
}

bool is_temporary(const PgQuery__RangeVar* range) {
  if (!range) return false;
  return text(range->relpersistence) == "t" || text(range->schemaname).starts_with("pg_temp");
}

plan no_temporary() {
  return refused("temporary tables, views and sequences cannot be used in a sharded database",
                 "Use a CTE, or an ordinary table.");
}

const char* const other_path_hint = "SET search_path without pg_temp, or write the schema.";

// What is made then without a schema could be temporary, on a connection that others get.
bool sets_temporary_path(const node& s) {
  if (s.node_case != PG_QUERY__NODE__NODE_VARIABLE_SET_STMT) return false;
  const auto& set = *s.variable_set_stmt;
  const auto values = list(set.n_args, set.args);
  return text(set.name) == "search_path" &&
         std::any_of(values.begin(), values.end(), [](const node* schema) {
           return string_constant(schema).starts_with("pg_temp");
         });
}

// Does the statement make something in the first schema of the path?
bool makes_without_schema(const node& s) {
  const auto range = [](const PgQuery__RangeVar* made) {
    return made && text(made->schemaname).empty();
  };
  const auto parts = [](std::size_t count) { return count == 1; };
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_CREATE_STMT: return range(s.create_stmt->relation);
    case PG_QUERY__NODE__NODE_CREATE_SEQ_STMT: return range(s.create_seq_stmt->sequence);
    case PG_QUERY__NODE__NODE_VIEW_STMT: return range(s.view_stmt->view);
    case PG_QUERY__NODE__NODE_COMPOSITE_TYPE_STMT: return range(s.composite_type_stmt->typevar);
    case PG_QUERY__NODE__NODE_CREATE_FOREIGN_TABLE_STMT:
      return s.create_foreign_table_stmt->base_stmt &&
             range(s.create_foreign_table_stmt->base_stmt->relation);
    case PG_QUERY__NODE__NODE_CREATE_TABLE_AS_STMT:
      return s.create_table_as_stmt->into && range(s.create_table_as_stmt->into->rel);
    case PG_QUERY__NODE__NODE_CREATE_ENUM_STMT: return parts(s.create_enum_stmt->n_type_name);
    case PG_QUERY__NODE__NODE_CREATE_RANGE_STMT: return parts(s.create_range_stmt->n_type_name);
    case PG_QUERY__NODE__NODE_CREATE_DOMAIN_STMT: return parts(s.create_domain_stmt->n_domainname);
    case PG_QUERY__NODE__NODE_CREATE_FUNCTION_STMT:
      return parts(s.create_function_stmt->n_funcname);
    case PG_QUERY__NODE__NODE_DEFINE_STMT: return parts(s.define_stmt->n_defnames);
    default: return false;
  }
}

bool has_option(node_list options, const char* name) {
  return std::any_of(options.begin(), options.end(), [&](const node* each) {
    return each->node_case == PG_QUERY__NODE__NODE_DEF_ELEM &&
           text(each->def_elem->defname) == name;
  });
}

std::string name_in(const PgQuery__RangeVar& range, const std::string& schema) {
  const bool add = !schema.empty() && text(range.schemaname).empty();
  return (add ? sql_identifier(schema) + "." : "") + written_name(range);
}

plan create_table(const PgQuery__CreateStmt& s, bool single, const std::string& schema = {}) {
  if (is_temporary(s.relation)) return no_temporary();
  plan p = ddl();
  const auto elements = list(s.n_table_elts, s.table_elts);
  for (const node* each : elements) {
    if (each->node_case != PG_QUERY__NODE__NODE_COLUMN_DEF) continue;
    if (auto no = check_sequence(*each->column_def)) return single ? ddl() : *no;
  }
  const bool sequences = std::any_of(elements.begin(), elements.end(), [](const node* each) {
    // LIKE may copy identity columns.
    return each->node_case == PG_QUERY__NODE__NODE_TABLE_LIKE_CLAUSE ||
           (each->node_case == PG_QUERY__NODE__NODE_COLUMN_DEF && has_sequence(*each->column_def));
  });
  if (sequences && s.relation) p.spread_sequences_of.push_back(name_in(*s.relation, schema));
  return p;
}

plan create_sequence(const PgQuery__CreateSeqStmt& s, bool single,
                     const std::string& schema = {}) {
  if (is_temporary(s.sequence)) return no_temporary();
  if (auto no = check_sequence(list(s.n_options, s.options))) return single ? ddl() : *no;
  plan p = ddl();
  if (s.sequence) p.spread_sequences_of.push_back(name_in(*s.sequence, schema));
  return p;
}

plan create_schema(const PgQuery__CreateSchemaStmt& s, bool single) {
  plan p = ddl();
  const std::string schema = s.schemaname && *s.schemaname ? s.schemaname
                             : s.authrole                  ? text(s.authrole->rolename)
                                                           : std::string{};
  for (const node* each : list(s.n_schema_elts, s.schema_elts)) {
    plan part;
    if (each->node_case == PG_QUERY__NODE__NODE_CREATE_STMT) {
      part = create_table(*each->create_stmt, single, schema);
    }
    if (each->node_case == PG_QUERY__NODE__NODE_CREATE_SEQ_STMT) {
      part = create_sequence(*each->create_seq_stmt, single, schema);
    }
    if (part.destination == destination::refused) return part;
    p.spread_sequences_of.insert(p.spread_sequences_of.end(), part.spread_sequences_of.begin(),
                                 part.spread_sequences_of.end());
  }
  return p;
}

// Each shard would compute the values of rows that all shards have.
plan not_the_same(const std::string& what, const std::string& shown, const std::string& why) {
  return refused(what + " table " + shown + ", which is on every shard, with " + why +
                     ": its rows would not be the same on each",
                 "ADD COLUMN without a default, then ALTER COLUMN SET DEFAULT, then UPDATE with a "
                 "value.");
}

bool may_be_everywhere(const relation& found) {
  return found.kind != relation_kind::sharded && found.kind != relation_kind::unplaceable &&
         found.kind != relation_kind::hidden;
}

std::optional<plan> check_new_column(const PgQuery__ColumnDef& column, const std::string& shown,
                                     bool everywhere, const catalog& known) {
  if (has_sequence(column)) {
    return refused("ADD COLUMN with a sequence would number the rows of table " + shown +
                       " on each shard by itself",
                   "Add a plain column, give its rows values, and then make it an identity column "
                   "or give it a sequence as default.");
  }
  if (!everywhere) return std::nullopt;
  for (const node* each : list(column.n_constraints, column.constraints)) {
    if (each->node_case != PG_QUERY__NODE__NODE_CONSTRAINT ||
        each->constraint->contype != PG_QUERY__CONSTR_TYPE__CONSTR_DEFAULT) {
      continue;
    }
    const auto why = unsteady(each->constraint->raw_expr, column.type_name, known);
    if (!why.empty()) return not_the_same("ADD COLUMN to", shown, why);
  }
  return std::nullopt;
}

// Of one column of ALTER TABLE, or nothing to be said against it.
std::optional<plan> check_column_command(const PgQuery__AlterTableCmd& command,
                                         const std::string& shown, bool everywhere,
                                         const catalog& known) {
  const node* def = command.def;
  if (!def) return std::nullopt;
  const bool column = def->node_case == PG_QUERY__NODE__NODE_COLUMN_DEF;
  if (column && command.subtype == PG_QUERY__ALTER_TABLE_TYPE__AT_AddColumn) {
    return check_new_column(*def->column_def, shown, everywhere, known);
  }
  if (column && command.subtype == PG_QUERY__ALTER_TABLE_TYPE__AT_AlterColumnType && everywhere) {
    const auto why = unsteady(def->column_def->raw_default, known);   // USING
    if (!why.empty()) return not_the_same("ALTER COLUMN TYPE of", shown, why);
  }
  if (command.subtype == PG_QUERY__ALTER_TABLE_TYPE__AT_AddIdentity &&
      def->node_case == PG_QUERY__NODE__NODE_CONSTRAINT) {
    return check_sequence(list(def->constraint->n_options, def->constraint->options));
  }
  if (command.subtype == PG_QUERY__ALTER_TABLE_TYPE__AT_SetIdentity &&
      def->node_case == PG_QUERY__NODE__NODE_LIST) {
    return check_sequence_change(list(def->list->n_items, def->list->items));
  }
  return std::nullopt;
}

plan alter_table(const PgQuery__AlterTableStmt& s, const database_view& database,
                 const names& tables) {
  plan p = ddl();
  bool sequences = false;
  const bool single = database.shards <= 1;
  const auto found = s.relation ? tables.find(*s.relation) : relation{};
  const auto shown = s.relation ? shown_name(*s.relation) : std::string{};
  for (const node* each : list(s.n_cmds, s.cmds)) {
    if (each->node_case != PG_QUERY__NODE__NODE_ALTER_TABLE_CMD) continue;
    const auto& command = *each->alter_table_cmd;
    sequences |= command.subtype == PG_QUERY__ALTER_TABLE_TYPE__AT_AddIdentity;
    std::optional<plan> no;
    if (!single) {
      no = check_column_command(command, shown, may_be_everywhere(found), database.catalog);
    }
    if (!single && !no && s.relation) no = check_sharding(*s.relation, command, tables);
    if (no) return *no;
    if (!command.def) continue;
    sequences |= command.def->node_case == PG_QUERY__NODE__NODE_COLUMN_DEF &&
                 has_sequence(*command.def->column_def);
    if (command.def->node_case == PG_QUERY__NODE__NODE_PARTITION_CMD &&
        command.def->partition_cmd->concurrent) {
      return not_together();
    }
  }
  if (sequences && s.relation) p.spread_sequences_of.push_back(written_name(*s.relation));
  return p;
}

plan create_table_as(const PgQuery__CreateTableAsStmt& s, bool single, const catalog& known) {
  if (s.into && is_temporary(s.into->rel)) return no_temporary();
  if (s.objtype != PG_QUERY__OBJECT_TYPE__OBJECT_MATVIEW) {
    return refused("CREATE TABLE AS would fill the table with the rows of each shard",
                   "Create the table first, then insert into it.");
  }
  const auto why = single ? std::string{} : unsteady(s.query, known);
  if (why.empty()) return ddl();
  return refused("a materialized view with " + why + " would not be the same on every shard",
                 "Leave it out of the view, and compute it in the statements that read the view.");
}

plan reindex(const PgQuery__ReindexStmt& s) {
  // They name the database, which has another name on each shard.
  if (s.kind == PG_QUERY__REINDEX_OBJECT_TYPE__REINDEX_OBJECT_DATABASE ||
      s.kind == PG_QUERY__REINDEX_OBJECT_TYPE__REINDEX_OBJECT_SYSTEM) {
    return not_together();
  }
  const bool table = s.kind == PG_QUERY__REINDEX_OBJECT_TYPE__REINDEX_OBJECT_INDEX ||
                     s.kind == PG_QUERY__REINDEX_OBJECT_TYPE__REINDEX_OBJECT_TABLE;
  return all_shards(false, !table || has_option(list(s.n_params, s.params), "concurrently"));
}

plan transaction(const PgQuery__TransactionStmt& s) {
  switch (s.kind) {
    case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_PREPARE:
    case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_COMMIT_PREPARED:
    case PG_QUERY__TRANSACTION_STMT_KIND__TRANS_STMT_ROLLBACK_PREPARED:
      return refused("two-phase commit by the client is not possible in a sharded database",
                     "Use COMMIT; commits over several shards come in a later version.");
    default:
      return any_shard();
  }
}

plan rows(const node& statement, const database_view& database, const request& from,
          const names& tables) {
  analysis look{database, from, tables};
  look.statement(&statement);
  return look.finish();
}

// EXECUTE finds the tables by the search_path of its moment.
bool any_path_goes_anywhere(const node& statement, const database_view& database,
                            const request& from) {
  auto by_any = from;
  by_any.search_path = unknown_path;
  const auto p = plan_statement(statement, database, by_any, names{database, by_any});
  return p.destination == destination::any_shard;
}

// PREPARE, DECLARE and EXPLAIN wrap another statement.
plan wrapped(const node& statement, const database_view& database, const request& from,
             const names& tables) {
  const bool is_prepare = statement.node_case == PG_QUERY__NODE__NODE_PREPARE_STMT;
  const node* inner = is_prepare ? statement.prepare_stmt->query
                      : statement.node_case == PG_QUERY__NODE__NODE_EXPLAIN_STMT
                          ? statement.explain_stmt->query
                          : statement.declare_cursor_stmt->query;
  if (!inner) return refused("a statement is missing");
  plan p = plan_statement(*inner, database, from, tables);
  if (is_prepare && p.destination == destination::all_shards) {
    return refused("PREPARE of a statement that goes to all shards",
                   "Use prepared statements of the protocol (Parse, Bind), as drivers do.");
  }
  const bool explain = statement.node_case == PG_QUERY__NODE__NODE_EXPLAIN_STMT;
  if (explain && !p.rows.table.empty() &&
      !has_option(list(statement.explain_stmt->n_options, statement.explain_stmt->options),
                  "analyze")) {
    return any_shard();   // the same on each
  }
  if (p.destination == destination::all_shards) {
    return explain ? refused("EXPLAIN of a statement that goes to all shards",
                             "Explain it on one server directly.")
                   : refused("a cursor of a statement that goes to all shards",
                             "Send the statement itself.");
  }
  if (is_prepare && p.destination == destination::one_shard) {
    return refused("PREPARE of a statement on sharded tables: EXECUTE would have to find the shard",
                   "Use prepared statements of the protocol (Parse, Bind), as drivers do.");
  }
  if (is_prepare && database.shards > 1 && p.destination == destination::any_shard &&
      !any_path_goes_anywhere(*inner, database, from)) {
    return refused("PREPARE of a statement that would read sharded tables by another search_path",
                   "Write the schemas of its tables, or use prepared statements of the protocol "
                   "(Parse, Bind), as drivers do.");
  }
  return p;
}

// What goes to one shard because it is about the session only, or to none.
std::optional<plan> session_statement(const node& s) {
  const char* const listen_hint = "Connect to one server directly for LISTEN and NOTIFY.";
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_VARIABLE_SET_STMT:
    case PG_QUERY__NODE__NODE_VARIABLE_SHOW_STMT:
    case PG_QUERY__NODE__NODE_DISCARD_STMT:
    case PG_QUERY__NODE__NODE_UNLISTEN_STMT:
    case PG_QUERY__NODE__NODE_DEALLOCATE_STMT:
    case PG_QUERY__NODE__NODE_EXECUTE_STMT:  // only what goes to any shard can be prepared
    case PG_QUERY__NODE__NODE_FETCH_STMT:
    case PG_QUERY__NODE__NODE_CLOSE_PORTAL_STMT:
    case PG_QUERY__NODE__NODE_CONSTRAINTS_SET_STMT:
    case PG_QUERY__NODE__NODE_LOAD_STMT:
      return any_shard();
    case PG_QUERY__NODE__NODE_TRANSACTION_STMT: return transaction(*s.transaction_stmt);
    case PG_QUERY__NODE__NODE_LISTEN_STMT:
      return refused("LISTEN would hear the notifications of one shard only", listen_hint);
    case PG_QUERY__NODE__NODE_NOTIFY_STMT:
      return refused("NOTIFY would reach the listeners of one shard only", listen_hint);
    case PG_QUERY__NODE__NODE_DO_STMT:
      return refused("what a DO block reads and writes cannot be told, so it has no shard",
                     "Send its statements one at a time.");
    case PG_QUERY__NODE__NODE_CALL_STMT:
      return refused("what a procedure reads and writes cannot be told, so CALL has no shard",
                     "Send the statements of the procedure one at a time.");
    case PG_QUERY__NODE__NODE_LOCK_STMT:
      return refused("LOCK TABLE would lock the table on one shard only",
                     "Lock rows by their key with SELECT … FOR UPDATE.");
    default: return std::nullopt;
  }
}

// Of a change that is right on one server: why it is not on several, or nothing.
std::optional<plan> check_change(const node& s, const database_view& database,
                                 const names& tables) {
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_ALTER_SEQ_STMT:
      return check_sequence_change(list(s.alter_seq_stmt->n_options, s.alter_seq_stmt->options));
    case PG_QUERY__NODE__NODE_RENAME_STMT: return check_rename(*s.rename_stmt, database, tables);
    case PG_QUERY__NODE__NODE_ALTER_OBJECT_SCHEMA_STMT:
      return check_new_schema(*s.alter_object_schema_stmt, database, tables);
    default: return std::nullopt;
  }
}

// Statements about objects: the same on every shard.
plan object_statement(const node& s, const database_view& database, const names& tables) {
  const bool single = database.shards <= 1;
  if (!single && tables.temporary_in_path() && makes_without_schema(s)) {
    return refused("search_path has pg_temp in it, and temporary objects cannot be used in a "
                   "sharded database",
                   other_path_hint);
  }
  if (auto no = single ? std::nullopt : check_change(s, database, tables)) return *no;
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_CREATE_STMT: return create_table(*s.create_stmt, single);
    case PG_QUERY__NODE__NODE_CREATE_SEQ_STMT:
      return create_sequence(*s.create_seq_stmt, single);
    case PG_QUERY__NODE__NODE_CREATE_SCHEMA_STMT:
      return create_schema(*s.create_schema_stmt, single);
    case PG_QUERY__NODE__NODE_ALTER_TABLE_STMT:
      return alter_table(*s.alter_table_stmt, database, tables);
    case PG_QUERY__NODE__NODE_VIEW_STMT:
      return is_temporary(s.view_stmt->view) ? no_temporary() : ddl();
    case PG_QUERY__NODE__NODE_CREATE_TABLE_AS_STMT:
      return create_table_as(*s.create_table_as_stmt, single, database.catalog);
    case PG_QUERY__NODE__NODE_INDEX_STMT: return ddl(s.index_stmt->concurrent);
    case PG_QUERY__NODE__NODE_DROP_STMT: return ddl(s.drop_stmt->concurrent);
    case PG_QUERY__NODE__NODE_REINDEX_STMT: return reindex(*s.reindex_stmt);
    case PG_QUERY__NODE__NODE_VACUUM_STMT: return all_shards(false, s.vacuum_stmt->is_vacuumcmd);
    case PG_QUERY__NODE__NODE_CLUSTER_STMT: return all_shards(false, !s.cluster_stmt->relation);
    case PG_QUERY__NODE__NODE_TRUNCATE_STMT:
    case PG_QUERY__NODE__NODE_REFRESH_MAT_VIEW_STMT:
      return all_shards(false);
    case PG_QUERY__NODE__NODE_CHECK_POINT_STMT: return all_shards(false, true);
    case PG_QUERY__NODE__NODE_CREATEDB_STMT:
    case PG_QUERY__NODE__NODE_DROPDB_STMT:
    case PG_QUERY__NODE__NODE_ALTER_DATABASE_STMT:
    case PG_QUERY__NODE__NODE_CREATE_TABLE_SPACE_STMT:
    case PG_QUERY__NODE__NODE_DROP_TABLE_SPACE_STMT:
    case PG_QUERY__NODE__NODE_ALTER_SYSTEM_STMT:
    case PG_QUERY__NODE__NODE_CREATE_SUBSCRIPTION_STMT:
    case PG_QUERY__NODE__NODE_ALTER_SUBSCRIPTION_STMT:
    case PG_QUERY__NODE__NODE_DROP_SUBSCRIPTION_STMT:
      return not_together();
    default: break;
  }
  // Every other kind that has a Stmt in its name creates, alters, drops, grants or comments.
  std::vector<const tree_message*> inner;
  children(reinterpret_cast<const tree_message&>(s), inner);
  const std::string kind = inner.empty() ? "" : text(inner.front()->descriptor->short_name);
  if (kind.ends_with("Stmt")) return ddl();
  return refused("a statement of kind " + in_quotes(kind) + " cannot be planned for shards");
}

}  // namespace

plan plan_statement(const node& s, const database_view& database, const request& from,
                    const names& tables) {
  const bool single = database.shards <= 1;
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_SELECT_STMT:
      return single ? any_shard() : rows(s, database, from, tables);
    case PG_QUERY__NODE__NODE_INSERT_STMT:
    case PG_QUERY__NODE__NODE_UPDATE_STMT:
    case PG_QUERY__NODE__NODE_DELETE_STMT:
    case PG_QUERY__NODE__NODE_MERGE_STMT:
      return single ? any_shard(access::write) : rows(s, database, from, tables);
    case PG_QUERY__NODE__NODE_COPY_STMT:
      return single ? any_shard(s.copy_stmt->is_from ? access::write : access::read)
                    : plan_copy(*s.copy_stmt, database, from, tables);
    case PG_QUERY__NODE__NODE_PREPARE_STMT:
    case PG_QUERY__NODE__NODE_EXPLAIN_STMT:
    case PG_QUERY__NODE__NODE_DECLARE_CURSOR_STMT:
      return wrapped(s, database, from, tables);
    default: break;
  }
  if (!single && sets_temporary_path(s)) {
    return refused("search_path cannot have pg_temp in it in a sharded database, where nothing "
                   "temporary can be used",
                   other_path_hint);
  }
  if (auto session = session_statement(s)) {
    return single && session->destination == destination::refused ? any_shard(access::write)
                                                                 : std::move(*session);
  }
  plan p = object_statement(s, database, tables);
  if (single && p.destination == destination::refused) return any_shard(access::write);
  return p;
}

}  // namespace pgsled::plan
