// The walk through a statement: finds occurrences and where their conditions stand. What it does
// not know by name it visits by reflection, so that nothing goes unseen.
#include <algorithm>

#include "common/plan/analysis.hpp"

namespace pgsled::plan {
namespace {

// Functions that run a text as SQL, and so may read any table.
bool runs_sql(const std::string& name) {
  return name.starts_with("query_to_xml") || name.starts_with("table_to_xml") ||
         name.starts_with("schema_to_xml") || name.starts_with("database_to_xml") ||
         name.starts_with("cursor_to_xml") || name.starts_with("dblink") ||
         name.starts_with("crosstab") || name == "connectby" || name == "ts_stat" ||
         name == "ts_rewrite" || name == "xpath_table";
}
bool is_advisory_lock(const std::string& name) {
  return name.starts_with("pg_advisory_lock") || name.starts_with("pg_try_advisory_lock") ||
         name.starts_with("pg_advisory_xact_lock") || name.starts_with("pg_try_advisory_xact_lock");
}
bool is_large_object(const std::string& name) {
  return name.starts_with("lo_") || name == "loread" || name == "lowrite";
}

const char* const one_key_hint =
    "Bind every sharded table of the statement to one value of its sharding key.";

}  // namespace

void analysis::walk_list(node_list nodes, const scope& in) {
  for (const node* each : nodes) walk(as_message(each), in);
}

void analysis::walk(const tree_message* m, const scope& in) {
  if (!m || refusal_) return;
  const auto* type = m->descriptor;
  if (type == &pg_query__select_stmt__descriptor) return select(as<PgQuery__SelectStmt>(m), in);
  if (type == &pg_query__insert_stmt__descriptor) return insert(as<PgQuery__InsertStmt>(m), in);
  if (type == &pg_query__update_stmt__descriptor) return update(as<PgQuery__UpdateStmt>(m), in);
  if (type == &pg_query__delete_stmt__descriptor) return remove(as<PgQuery__DeleteStmt>(m), in);
  if (type == &pg_query__merge_stmt__descriptor) return merge(as<PgQuery__MergeStmt>(m));
  if (type == &pg_query__func_call__descriptor) call(as<PgQuery__FuncCall>(m));
  if (type == &pg_query__param_ref__descriptor) keys_.seen(as<PgQuery__ParamRef>(m));
  if (type == &pg_query__type_cast__descriptor) {
    const auto& cast = as<PgQuery__TypeCast>(m);
    const auto key_type = key_type_of(cast.type_name);
    if (key_type && cast.arg && cast.arg->node_case == PG_QUERY__NODE__NODE_PARAM_REF) {
      keys_.use(cast.arg, *key_type);
    }
  }
  if (type == &pg_query__range_var__descriptor) {
    return refuse("table " + shown_name(as<PgQuery__RangeVar>(m)) +
                  " stands in a place of the statement that cannot be planned for shards");
  }
  std::vector<const tree_message*> below;
  children(*m, below);
  for (const tree_message* each : below) walk(each, in);
}

void analysis::with(const PgQuery__WithClause* clause, scope& names) {
  if (!clause) return;
  std::vector<const PgQuery__CommonTableExpr*> ctes;
  for (const node* each : list(clause->n_ctes, clause->ctes)) {
    if (each->node_case == PG_QUERY__NODE__NODE_COMMON_TABLE_EXPR) {
      ctes.push_back(each->common_table_expr);
    }
  }
  if (clause->recursive) {
    for (const auto* each : ctes) names.ctes.push_back(text(each->ctename));
  }
  for (const auto* each : ctes) {
    walk(as_message(each->ctequery), names);
    walk(as_message(each->search_clause), names);
    walk(as_message(each->cycle_clause), names);
    if (!clause->recursive) names.ctes.push_back(text(each->ctename));
  }
}

void analysis::select(const PgQuery__SelectStmt& s, const scope& outer) {
  if (s.into_clause) {
    return refuse("SELECT INTO would fill the new table with the rows of one shard",
                  "Create the table first, then insert into it.");
  }
  scope names;
  names.outer = &outer;
  with(s.with_clause, names);
  scope block;
  block.outer = &names;
  if (s.larg && s.rarg) {
    select(*s.larg, names);
    select(*s.rarg, names);
  } else {
    const std::size_t omni_before = omni_seen_;
    from(list(s.n_from_clause, s.from_clause), block);
    const auto mine = occurrences_of(block);
    conditions(s.where_clause, block, mine);
    locking(s, block, omni_before);
    if (s.n_target_list == 1 && s.target_list[0]->node_case == PG_QUERY__NODE__NODE_RES_TARGET) {
      output out;
      out.occurrence = resolve(s.target_list[0]->res_target->val, block);
      if (!mine.contains(out.occurrence)) out.occurrence = nothing;
      const bool plain_distinct =
          s.n_distinct_clause == 0 ||
          (s.n_distinct_clause == 1 &&
           s.distinct_clause[0]->node_case == PG_QUERY__NODE__NODE__NOT_SET);
      out.row_by_row = plain_distinct && !s.limit_count && !s.limit_offset &&
                       s.n_group_clause == 0 && !s.having_clause && s.n_locking_clause == 0;
      outputs_[&s] = out;
    }
  }
  walk_list(list(s.n_distinct_clause, s.distinct_clause), block);
  walk_list(list(s.n_target_list, s.target_list), block);
  walk(as_message(s.where_clause), block);
  walk_list(list(s.n_group_clause, s.group_clause), block);
  walk(as_message(s.having_clause), block);
  walk_list(list(s.n_window_clause, s.window_clause), block);
  walk_list(list(s.n_values_lists, s.values_lists), block);
  walk_list(list(s.n_sort_clause, s.sort_clause), block);
  walk(as_message(s.limit_offset), block);
  walk(as_message(s.limit_count), block);
}

// While FROM is read, block.items holds what a LATERAL item may refer to; afterwards, what the
// rest of the block may.
void analysis::from(node_list items, scope& block) {
  scope all;
  for (const node* each : items) {
    scope one;
    one.outer = block.outer;
    from_item(each, block, one);
    all.items.insert(all.items.end(), one.items.begin(), one.items.end());
    for (const auto& [name, of] : one.merged) {
      const auto [at, fresh] = all.merged.emplace(name, of);
      if (!fresh) at->second = nothing;
    }
  }
  block.items = std::move(all.items);
  block.merged = std::move(all.merged);
}

void analysis::from_item(const node* n, scope& block, scope& joined) {
  if (!n || refusal_) return;
  switch (n->node_case) {
    case PG_QUERY__NODE__NODE_RANGE_VAR: return table(*n->range_var, block, joined);
    case PG_QUERY__NODE__NODE_JOIN_EXPR: return join(*n->join_expr, block, joined);
    case PG_QUERY__NODE__NODE_RANGE_SUBSELECT: {
      const auto& sub = *n->range_subselect;
      walk(as_message(sub.subquery), sub.lateral ? block : *block.outer);
      return add_alias(sub.alias, block, joined);
    }
    case PG_QUERY__NODE__NODE_RANGE_TABLE_SAMPLE: {
      const auto& sample = *n->range_table_sample;
      from_item(sample.relation, block, joined);
      walk_list(list(sample.n_args, sample.args), *block.outer);
      return walk(as_message(sample.repeatable), *block.outer);
    }
    case PG_QUERY__NODE__NODE_RANGE_FUNCTION:
      walk(as_message(n->range_function), block);
      return add_alias(n->range_function->alias, block, joined);
    case PG_QUERY__NODE__NODE_RANGE_TABLE_FUNC:
      walk(as_message(n->range_table_func), block);
      return add_alias(n->range_table_func->alias, block, joined);
    default:
      walk(as_message(n), block);
      return add_alias(nullptr, block, joined);
  }
}

// An item whose columns are none of our business, but whose name hides others.
void analysis::add_alias(const PgQuery__Alias* alias, scope& block, scope& joined) {
  item opaque;
  opaque.alias = alias ? text(alias->aliasname) : "";
  opaque.aliased = true;
  block.items.push_back(opaque);
  joined.items.push_back(std::move(opaque));
}

void analysis::table(const PgQuery__RangeVar& range, scope& block, scope& joined) {
  if (is_cte(range, block)) {
    item cte;
    cte.alias = range.alias ? text(range.alias->aliasname) : text(range.relname);
    cte.aliased = true;
    block.items.push_back(cte);
    joined.items.push_back(std::move(cte));
    return;
  }
  relation found;
  item one = target(range, found, nullptr);
  block.items.push_back(one);
  joined.items.push_back(std::move(one));
}

// `verb`: what is done to the table, or nullptr for reading.
analysis::item analysis::target(const PgQuery__RangeVar& range, relation& found, const char* verb) {
  found = tables_.find(range);
  item one;
  one.alias = range.alias ? text(range.alias->aliasname) : text(range.relname);
  one.schema = text(range.schemaname);
  one.aliased = range.alias != nullptr;
  one.renamed = range.alias && range.alias->n_colnames > 0;
  const std::string shown = shown_name(range);
  if (verb) writes_ = true;
  switch (found.kind) {
    case relation_kind::sharded:
      one.occurrence = add_occurrence(range, found);
      break;
    case relation_kind::hidden:
      refuse(shown + " reads sharded tables, and which of their rows cannot be told from the " +
                 "statement",
             "Ask the sharded tables themselves, by their sharding key.");
      break;
    case relation_kind::unknown:
    case relation_kind::ambiguous: {
      const auto why = not_certain(found, shown);
      refuse(why->message, why->hint);
      break;
    }
    case relation_kind::unplaceable:
      refuse("rows of table " + shown + " cannot be placed by its sharding key " +
                 in_quotes(found.table->column) + ", " + found.why,
             found.hint);
      break;
    case relation_kind::omni:
      ++omni_seen_;
      if (!verb) break;
      if (&range != written_) {
        refuse(std::string{verb} + " in WITH on table " + shown + ", which is on every shard, " +
                   "cannot be compared between the shards",
               "Make it a statement of its own.");
        break;
      }
      rows_.table = (one.schema.empty() ? "" : in_quotes(one.schema) + ".") +
                    in_quotes(text(range.relname));
      rows_.reference = in_quotes(one.alias);
      break;
    case relation_kind::system:
      ++omni_seen_;
      if (!verb) break;
      refuse(std::string{verb} + " on table " + shown + " of the system would change it on one " +
                 "shard only",
             "Connect to one server directly.");
      break;
  }
  return one;
}

int analysis::add_occurrence(const PgQuery__RangeVar& range, const relation& found) {
  occurrence o;
  o.shown = shown_name(range);
  o.column = found.table->column;
  o.rule = found.rule;
  if (found.columns && !found.columns->ordered) unordered_ = o.shown;
  occurrences_.push_back(std::move(o));
  return static_cast<int>(occurrences_.size() - 1);
}

void analysis::join(const PgQuery__JoinExpr& j, scope& block, scope& joined) {
  const std::size_t before = block.items.size();
  scope left, right;
  left.outer = right.outer = block.outer;
  from_item(j.larg, block, left);
  from_item(j.rarg, block, right);
  const auto on_left = occurrences_of(left), on_right = occurrences_of(right);
  if (j.is_natural && !(on_left.empty() && on_right.empty())) {
    return refuse("NATURAL JOIN of sharded tables depends on all their columns",
                  "Write JOIN … USING or JOIN … ON with the sharding keys.");
  }
  scope both;
  both.outer = block.outer;
  both.items = left.items;
  both.items.insert(both.items.end(), right.items.begin(), right.items.end());
  both.merged = left.merged;
  for (const auto& [name, of] : right.merged) {
    const auto [at, fresh] = both.merged.emplace(name, of);
    if (!fresh) at->second = nothing;
  }
  join_using(j, left, right, both);
  // Only what the condition filters may be bound by it: nothing on a preserved side.
  std::set<int> bindable;
  const bool inner = j.jointype == PG_QUERY__JOIN_TYPE__JOIN_INNER;
  if (inner || j.jointype == PG_QUERY__JOIN_TYPE__JOIN_RIGHT) {
    bindable.insert(on_left.begin(), on_left.end());
  }
  if (inner || j.jointype == PG_QUERY__JOIN_TYPE__JOIN_LEFT) {
    bindable.insert(on_right.begin(), on_right.end());
  }
  conditions(j.quals, both, bindable);
  walk(as_message(j.quals), both);
  if (j.alias) {  // hides the names inside
    block.items.resize(before);
    add_alias(j.alias, block, joined);
    return;
  }
  joined.items.insert(joined.items.end(), both.items.begin(), both.items.end());
  joined.merged = std::move(both.merged);
  if (j.join_using_alias) add_alias(j.join_using_alias, block, joined);
}

// A column of USING stands for the sharding key of a side only if it is that of both sides: the
// column of another table may have another type, and then the merged one has, too.
void analysis::join_using(const PgQuery__JoinExpr& j, const scope& left, const scope& right,
                          scope& joined) {
  for (const auto& name : name_parts(list(j.n_using_clause, j.using_clause))) {
    fact f;
    f.left = resolve_name(name, left);
    f.right = resolve_name(name, right);
    joined.merged[name] = nothing;
    if (f.left == nothing || f.right == nothing) continue;
    const bool inner = j.jointype == PG_QUERY__JOIN_TYPE__JOIN_INNER;
    f.binds_left = inner || j.jointype == PG_QUERY__JOIN_TYPE__JOIN_RIGHT;
    f.binds_right = inner || j.jointype == PG_QUERY__JOIN_TYPE__JOIN_LEFT;
    facts_.push_back(f);
    if (inner || j.jointype == PG_QUERY__JOIN_TYPE__JOIN_LEFT) joined.merged[name] = f.left;
    if (j.jointype == PG_QUERY__JOIN_TYPE__JOIN_RIGHT) joined.merged[name] = f.right;
  }
}

void analysis::locking(const PgQuery__SelectStmt& s, const scope& block, std::size_t omni_before) {
  for (const node* each : list(s.n_locking_clause, s.locking_clause)) {
    if (each->node_case != PG_QUERY__NODE__NODE_LOCKING_CLAUSE) continue;
    writes_ = true;
    const auto& clause = *each->locking_clause;
    bool locks_other = clause.n_locked_rels == 0 && omni_seen_ > omni_before;
    std::string only;   // that is locked; empty: several, or none that can be named
    if (clause.n_locked_rels == 0 && block.items.size() == 1) only = block.items.front().alias;
    for (const node* rel : list(clause.n_locked_rels, clause.locked_rels)) {
      const std::string name =
          rel->node_case == PG_QUERY__NODE__NODE_RANGE_VAR ? text(rel->range_var->relname) : "";
      if (clause.n_locked_rels == 1) only = name;
      locks_other |= std::none_of(block.items.begin(), block.items.end(), [&](const item& i) {
        return i.alias == name && i.occurrence != nothing;
      });
    }
    if (!locks_other) continue;
    // Which rows are skipped may differ between the shards.
    const bool alike = clause.wait_policy != PG_QUERY__LOCK_WAIT_POLICY__LockWaitSkip;
    if (&s == selected_ && alike && !only.empty() && s.n_locking_clause == 1) {
      rows_.table = rows_.reference = in_quotes(only);
      rows_.returning = rows_.locks = true;
    } else if (!alike) {
      refuse("with SKIP LOCKED each shard might skip other rows of a table that is on every shard",
             "Shard the table of a queue by a key. Or read without a lock, and lock the one row by "
             "its key: WHERE … FOR UPDATE NOWAIT.");
    } else {
      const auto why = lock_on_one_only().error;
      refuse(why.message, why.hint);
    }
  }
}

void analysis::insert(const PgQuery__InsertStmt& s, const scope& outer) {
  if (!s.relation) return refuse("INSERT without a table");
  scope names;
  names.outer = &outer;
  with(s.with_clause, names);
  relation found;
  scope block;
  block.outer = &names;
  block.items.push_back(target(*s.relation, found, "INSERT"));
  if (refusal_) return;
  const int mine = block.items.back().occurrence;
  if (mine == nothing) {
    rows_.returning = s.n_returning_list > 0;
    rows_.repeatable = s.on_conflict_clause == nullptr;
  } else {
    occurrences_[static_cast<std::size_t>(mine)].inserted = true;
    insert_row(s, found, mine);
  }
  walk(as_message(s.select_stmt), names);
  if (s.on_conflict_clause) {
    const auto& conflict = *s.on_conflict_clause;
    if (!keeps_keys(*s.relation, found, list(conflict.n_target_list, conflict.target_list),
                    "ON CONFLICT DO UPDATE")) {
      return;
    }
    item excluded;
    excluded.alias = "excluded";
    block.items.push_back(excluded);
    walk(as_message(s.on_conflict_clause), block);
    block.items.pop_back();
  }
  walk_list(list(s.n_returning_list, s.returning_list), block);
}

void analysis::insert_row(const PgQuery__InsertStmt& s, const relation& found, int of) {
  const std::string shown = shown_name(*s.relation), column = in_quotes(found.table->column);
  if (!s.select_stmt || s.select_stmt->node_case != PG_QUERY__NODE__NODE_SELECT_STMT) {
    why_not_ = "DEFAULT VALUES gives it no value.";
    return;
  }
  const auto& rows = *s.select_stmt->select_stmt;
  if (rows.n_values_lists == 0) {
    return refuse(
        "INSERT … SELECT into table " + shown + " may give rows for several shards",
        "Insert the rows with VALUES, one statement for each, with a value for " + column + ".");
  }
  if (rows.n_values_lists > 1) {
    return refuse("INSERT of several rows into table " + shown +
                      " may give rows for several shards",
                  "Insert one row with each statement (drivers call this executemany or a batch).");
  }
  if (s.override == PG_QUERY__OVERRIDING_KIND__OVERRIDING_USER_VALUE) {
    why_not_ = "OVERRIDING USER VALUE may take another value than the statement gives.";
    return;
  }
  std::size_t position = 0;
  if (s.n_cols > 0) {
    while (position < s.n_cols &&
           (s.cols[position]->node_case != PG_QUERY__NODE__NODE_RES_TARGET ||
            s.cols[position]->res_target->n_indirection > 0 ||
            text(s.cols[position]->res_target->name) != found.table->column)) {
      ++position;
    }
  } else if (found.columns && !found.columns->ordered) {
    return refuse("INSERT without a column list into table " + shown +
                      ", whose columns are not the same, or in another order, on every shard",
                  "Name the columns in the statement, or make the table the same everywhere.");
  } else if (found.columns) {
    const auto& columns = found.columns->columns;
    position = static_cast<std::size_t>(
        std::find(columns.begin(), columns.end(), found.table->column) - columns.begin());
  } else {
    return refuse("INSERT without a column list into table " + shown +
                      " whose columns are not known to the planner",
                  "Name the columns in the statement.");
  }
  const node* row = rows.values_lists[0];
  if (row->node_case != PG_QUERY__NODE__NODE_LIST || position >= row->list->n_items) {
    why_not_ = "The statement does not give the column.";
    return;
  }
  const auto* items = row->list->items;
  if (std::any_of(items, items + position + 1, is_star)) {
    why_not_ = "Which value is the column's is not certain behind \".*\".";
    return;
  }
  const node* value = items[position];
  if (value && value->node_case == PG_QUERY__NODE__NODE_SET_TO_DEFAULT) {
    why_not_ = "The value is DEFAULT.";
  }
  const auto source = keys_.read(value, found.rule.type, found.limit);
  if (!keys_.why().empty()) why_not_ = keys_.why();
  if (!source) return;
  keys_.use(value, found.rule.type);
  occurrences_[static_cast<std::size_t>(of)].sources.push_back(*source);
}

// Whether all rows stay where they are when `targets` are set.
bool analysis::keeps_keys(const PgQuery__RangeVar& changed, const relation& found,
                          node_list targets, const char* verb) {
  for (const node* each : targets) {
    if (each->node_case != PG_QUERY__NODE__NODE_RES_TARGET) continue;
    const std::string column = text(each->res_target->name);
    if (found.table && column == found.table->column) {
      refuse(std::string(verb) + " changes the sharding key " + in_quotes(column) + " of table " +
                 shown_name(changed) + ", which may move rows to other shards",
             "Delete the row and insert it anew.");
      return false;
    }
    if (const auto* by = tables_.followed(changed, column)) {
      refuse(std::string(verb) + " of column " + in_quotes(column) + " of table " +
                 shown_name(changed) + " changes sharding keys of table " + in_quotes(by->of) +
                 " by foreign key " + in_quotes(by->foreign_key) +
                 ", which may move its rows to other shards",
             "Insert the row anew, and what refers to it, and then delete the old ones.");
      return false;
    }
  }
  return true;
}

void analysis::update(const PgQuery__UpdateStmt& s, const scope& outer) {
  if (!s.relation) return refuse("UPDATE without a table");
  scope names;
  names.outer = &outer;
  with(s.with_clause, names);
  scope block;
  block.outer = &names;
  from(list(s.n_from_clause, s.from_clause), block);
  relation found;
  block.items.push_back(target(*s.relation, found, "UPDATE"));
  if (refusal_) return;
  if (s.relation == written_) rows_.returning = s.n_returning_list > 0;
  if (!keeps_keys(*s.relation, found, list(s.n_target_list, s.target_list), "UPDATE")) return;
  conditions(s.where_clause, block, occurrences_of(block));
  walk_list(list(s.n_target_list, s.target_list), block);
  walk(as_message(s.where_clause), block);
  walk_list(list(s.n_returning_list, s.returning_list), block);
}

void analysis::remove(const PgQuery__DeleteStmt& s, const scope& outer) {
  if (!s.relation) return refuse("DELETE without a table");
  scope names;
  names.outer = &outer;
  with(s.with_clause, names);
  scope block;
  block.outer = &names;
  from(list(s.n_using_clause, s.using_clause), block);
  relation found;
  block.items.push_back(target(*s.relation, found, "DELETE"));
  if (const auto* by = tables_.followed(*s.relation)) {
    return refuse("DELETE from table " + shown_name(*s.relation) +
                      " changes sharding keys of table " + in_quotes(by->of) + " by foreign key " +
                      in_quotes(by->foreign_key) + ", which may move its rows to other shards",
                  "Let the foreign key say ON DELETE CASCADE or RESTRICT.");
  }
  if (s.relation == written_) rows_.returning = s.n_returning_list > 0;
  conditions(s.where_clause, block, occurrences_of(block));
  walk(as_message(s.where_clause), block);
  walk_list(list(s.n_returning_list, s.returning_list), block);
}

void analysis::merge(const PgQuery__MergeStmt& s) {
  refuse("MERGE into table " + (s.relation ? shown_name(*s.relation) : "") +
             " cannot be planned for shards yet",
         "Use INSERT … ON CONFLICT, UPDATE or DELETE with the sharding key.");
}

void analysis::call(const PgQuery__FuncCall& f) {
  const auto parts = name_parts(list(f.n_funcname, f.funcname));
  if (parts.empty()) return;
  const std::string& name = parts.back();
  if (is_advisory_lock(name)) {
    return refuse("an advisory lock would be taken on one shard only",
                  "Lock a row of a sharded table by its key with SELECT … FOR UPDATE.");
  }
  if (name == "setval") {
    return refuse("setval() would set the sequence on one shard only",
                  "Set it on each shard with a direct connection.");
  }
  if (name == "pg_notify") {
    return refuse("notifications would reach the listeners of one shard only",
                  "Connect to one server directly for LISTEN and NOTIFY.");
  }
  if (is_large_object(name)) {
    return refuse("large objects would be kept on one shard only",
                  "Keep the data in a bytea column.");
  }
  if (runs_sql(name)) {
    return refuse("function " + in_quotes(name) + " may read any table", one_key_hint);
  }
  if (name == "nextval") writes_ = true;
  const auto& known = database_.catalog;
  const bool built_in = parts.size() == 2 && parts[0] == "pg_catalog";
  if (known.loaded && !built_in && !known.safe_functions.contains(name)) {
    unsafe_function_ = name;
    writes_ = true;
  }
}

}  // namespace pgsled::plan
