#include "common/plan/unsettled.hpp"

#include <algorithm>

namespace pgsled::plan {
namespace {

using name_list = std::vector<std::string>;

const char* const any_name = "*";

bool may_be_sharded(const std::string& name, const database_view& database) {
  return std::any_of(database.sharded.begin(), database.sharded.end(), [&](const auto& table) {
    return table.name.empty() || table.name == name;
  });
}

// A table that is on every shard, under whatever name: the planner takes it for what it is.
bool is_plain(const std::string& name, const database_view& database) {
  const auto& hidden = database.catalog.hides_sharded;
  return !may_be_sharded(name, database) &&
         std::none_of(hidden.begin(), hidden.end(), [&](const std::string& one) {
           return one.ends_with("." + name);
         });
}

name_list only_if_not_plain(name_list names, const database_view& database) {
  const bool plain = std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return name != any_name && is_plain(name, database);
  });
  return plain ? name_list{} : names;
}

name_list only(const PgQuery__RangeVar* range) {
  if (range == nullptr) return {};
  return {text(range->relname)};
}

// Of a function, an operator, a type: the last of its parts.
name_list last_of(node_list parts) {
  const auto names = name_parts(parts);
  return names.empty() ? name_list{} : name_list{names.back()};
}

name_list of_object(const node* object) {
  if (object == nullptr) return {};
  if (object->node_case == PG_QUERY__NODE__NODE_LIST) {
    return last_of(list(object->list->n_items, object->list->items));
  }
  if (object->node_case == PG_QUERY__NODE__NODE_OBJECT_WITH_ARGS) {
    const auto& with = *object->object_with_args;
    return last_of(list(with.n_objname, with.objname));
  }
  return {any_name};
}

// The catalog has to say which columns a table has that is sharded by the name of one.
bool may_be_sharded_by_column(const PgQuery__CreateStmt& s, const database_view& database) {
  const auto is_key = [&](const std::string& column) {
    return std::any_of(database.sharded.begin(), database.sharded.end(), [&](const auto& table) {
      return table.name.empty() && (column.empty() || table.column == column);
    });
  };
  if (s.of_typename && is_key({})) return true;
  for (const node* each : list(s.n_table_elts, s.table_elts)) {
    if (each->node_case == PG_QUERY__NODE__NODE_TABLE_LIKE_CLAUSE && is_key({})) return true;
    if (each->node_case == PG_QUERY__NODE__NODE_COLUMN_DEF &&
        is_key(text(each->column_def->colname))) {
      return true;
    }
  }
  return false;
}

// A new table is what it seems, unless it is a part of another one, or comes before another one of
// its name.
name_list created(const PgQuery__CreateStmt& s, const database_view& database) {
  const auto& known = database.catalog.tables;
  const auto made = only(s.relation);
  if (made.empty() || s.n_inh_relations > 0) return made;
  if (may_be_sharded_by_column(s, database)) return made;
  const bool second = std::any_of(known.begin(), known.end(), [&](const auto& table) {
    return table.name == made.front();
  });
  return second ? made : name_list{};
}

name_list altered(const PgQuery__AlterTableStmt& s, const database_view& database) {
  const auto table = only(s.relation);
  if (table.empty()) return {};
  bool parts = false;
  for (const node* each : list(s.n_cmds, s.cmds)) {
    if (each->node_case != PG_QUERY__NODE__NODE_ALTER_TABLE_CMD) continue;
    const auto what = each->alter_table_cmd->subtype;
    parts = parts || what == PG_QUERY__ALTER_TABLE_TYPE__AT_AttachPartition ||
            what == PG_QUERY__ALTER_TABLE_TYPE__AT_DetachPartition ||
            what == PG_QUERY__ALTER_TABLE_TYPE__AT_AddInherit ||
            what == PG_QUERY__ALTER_TABLE_TYPE__AT_DropInherit;
  }
  if (parts) return {any_name};
  return may_be_sharded(table.front(), database) ? table : name_list{};
}

name_list renamed(const PgQuery__RenameStmt& s, const database_view& database) {
  if (s.rename_type == PG_QUERY__OBJECT_TYPE__OBJECT_SCHEMA) return {any_name};
  auto names = s.relation != nullptr ? only(s.relation) : of_object(s.object);
  const bool column = s.rename_type == PG_QUERY__OBJECT_TYPE__OBJECT_COLUMN;
  if (!column) names.push_back(text(s.newname));
  return s.relation != nullptr ? only_if_not_plain(std::move(names), database) : names;
}

name_list dropped(const PgQuery__DropStmt& s, const database_view& database) {
  name_list names;
  for (const node* each : list(s.n_objects, s.objects)) {
    for (auto& one : only_if_not_plain(of_object(each), database)) names.push_back(std::move(one));
  }
  return names;
}

// What a message names as a table or a function.
std::string named_by(const tree_message* m) {
  if (m->descriptor == &pg_query__range_var__descriptor) {
    return text(as<PgQuery__RangeVar>(m).relname);
  }
  return m->descriptor == &pg_query__func_call__descriptor
             ? function_name(as<PgQuery__FuncCall>(m))
             : std::string{};
}

}  // namespace

name_list unsettled_by(const node& s, const database_view& database) {
  switch (s.node_case) {
    case PG_QUERY__NODE__NODE_CREATE_STMT: return created(*s.create_stmt, database);
    case PG_QUERY__NODE__NODE_CREATE_SCHEMA_STMT: {
      name_list made;
      const auto& schema = *s.create_schema_stmt;
      for (const node* each : list(schema.n_schema_elts, schema.schema_elts)) {
        for (auto& one : unsettled_by(*each, database)) made.push_back(std::move(one));
      }
      return made;
    }
    case PG_QUERY__NODE__NODE_ALTER_TABLE_STMT: return altered(*s.alter_table_stmt, database);
    case PG_QUERY__NODE__NODE_RENAME_STMT: return renamed(*s.rename_stmt, database);
    case PG_QUERY__NODE__NODE_DROP_STMT: return dropped(*s.drop_stmt, database);
    case PG_QUERY__NODE__NODE_VIEW_STMT: return only(s.view_stmt->view);
    case PG_QUERY__NODE__NODE_CREATE_TABLE_AS_STMT:
      return s.create_table_as_stmt->into ? only(s.create_table_as_stmt->into->rel) : name_list{};
    case PG_QUERY__NODE__NODE_CREATE_FOREIGN_TABLE_STMT:
      return s.create_foreign_table_stmt->base_stmt
                 ? only(s.create_foreign_table_stmt->base_stmt->relation)
                 : name_list{};
    case PG_QUERY__NODE__NODE_RULE_STMT: return only(s.rule_stmt->relation);
    case PG_QUERY__NODE__NODE_CREATE_TRIG_STMT: return only(s.create_trig_stmt->relation);
    case PG_QUERY__NODE__NODE_CREATE_POLICY_STMT: return only(s.create_policy_stmt->table);
    case PG_QUERY__NODE__NODE_ALTER_POLICY_STMT: return only(s.alter_policy_stmt->table);
    case PG_QUERY__NODE__NODE_ALTER_OBJECT_SCHEMA_STMT: {
      const auto& moved = *s.alter_object_schema_stmt;
      return moved.relation ? only_if_not_plain(only(moved.relation), database)
                            : of_object(moved.object);
    }
    case PG_QUERY__NODE__NODE_CREATE_FUNCTION_STMT: {
      const auto& made = *s.create_function_stmt;
      return last_of(list(made.n_funcname, made.funcname));
    }
    case PG_QUERY__NODE__NODE_DEFINE_STMT:
      return last_of(list(s.define_stmt->n_defnames, s.define_stmt->defnames));
    default: return {};
  }
}

std::string unsettled_in(const node& statement, const name_list& names) {
  if (names.empty()) return {};
  return first_said(as_message(&statement), [&](const tree_message* m) {
    auto name = named_by(m);
    const bool hit = std::any_of(names.begin(), names.end(), [&](const auto& one) {
      return one == name || one == any_name;
    });
    return hit ? name : std::string{};
  });
}

}  // namespace pgsled::plan
