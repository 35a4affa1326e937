// Conditions → facts about occurrences, and the names of columns.
#include <algorithm>

#include "common/plan/analysis.hpp"

namespace pgsled::plan {
// PostgreSQL's own "=", and no other one of that name.
bool analysis::is_equality(node_list name) const {
  const auto parts = name_parts(name);
  if (parts.empty() || parts.back() != "=") return false;
  return parts.size() == 1 ? tables_.has_usual_operators()
                           : parts.size() == 2 && parts[0] == "pg_catalog";
}

std::set<int> analysis::occurrences_of(const scope& in) {
  std::set<int> found;
  for (const auto& i : in.items) {
    if (i.occurrence != nothing) found.insert(i.occurrence);
  }
  return found;
}

// Top-level conjuncts only: under OR, NOT, CASE … nothing is certain.
void analysis::conditions(const node* condition, const scope& in, const std::set<int>& bindable) {
  if (!condition) return;
  switch (condition->node_case) {
    case PG_QUERY__NODE__NODE_BOOL_EXPR: {
      const auto& expression = *condition->bool_expr;
      if (expression.boolop != PG_QUERY__BOOL_EXPR_TYPE__AND_EXPR) return;
      for (const node* each : list(expression.n_args, expression.args)) {
        conditions(each, in, bindable);
      }
      return;
    }
    case PG_QUERY__NODE__NODE_A_EXPR: return comparison(*condition->a_expr, in, bindable);
    case PG_QUERY__NODE__NODE_SUB_LINK: return in_select(*condition->sub_link, in, bindable);
    default: return;
  }
}

void analysis::comparison(const PgQuery__AExpr& e, const scope& in, const std::set<int>& bindable) {
  if (!is_equality(list(e.n_name, e.name)) || !e.lexpr || !e.rexpr) return;
  if (e.kind == PG_QUERY__A__EXPR__KIND__AEXPR_IN) {
    if (e.rexpr->node_case != PG_QUERY__NODE__NODE_LIST || e.rexpr->list->n_items != 1) return;
    return equality(e.lexpr, e.rexpr->list->items[0], in, bindable);
  }
  if (e.kind != PG_QUERY__A__EXPR__KIND__AEXPR_OP) return;
  // (a, b) = (c, d) is a = c AND b = d.
  if (e.lexpr->node_case == PG_QUERY__NODE__NODE_ROW_EXPR &&
      e.rexpr->node_case == PG_QUERY__NODE__NODE_ROW_EXPR) {
    const auto &left = *e.lexpr->row_expr, &right = *e.rexpr->row_expr;
    if (left.n_args != right.n_args) return;
    // Which columns face each other is not known when one stands for several.
    if (std::any_of(left.args, left.args + left.n_args, is_star) ||
        std::any_of(right.args, right.args + right.n_args, is_star)) {
      return;
    }
    for (std::size_t i = 0; i < left.n_args; ++i) {
      equality(left.args[i], right.args[i], in, bindable);
    }
    return;
  }
  equality(e.lexpr, e.rexpr, in, bindable);
}

void analysis::equality(const node* left, const node* right, const scope& in,
                        const std::set<int>& bindable) {
  fact f;
  f.left = resolve(left, in);
  f.right = resolve(right, in);
  if (f.left == nothing) {
    std::swap(f.left, f.right);
    std::swap(left, right);
  }
  if (f.left == nothing || f.left == f.right) return;
  f.binds_left = bindable.contains(f.left);
  if (f.right != nothing) {
    f.binds_right = bindable.contains(f.right);
  } else {
    const auto type = occurrences_[static_cast<std::size_t>(f.left)].rule.type;
    f.source = keys_.read(right, type);
    if (!keys_.why().empty()) why_not_ = keys_.why();
    if (!f.source) return;
    keys_.use(right, type);
  }
  facts_.push_back(f);
}

void analysis::in_select(const PgQuery__SubLink& link, const scope& in,
                         const std::set<int>& bindable) {
  if (link.sub_link_type != PG_QUERY__SUB_LINK_TYPE__ANY_SUBLINK || !link.subselect ||
      link.subselect->node_case != PG_QUERY__NODE__NODE_SELECT_STMT) {
    return;
  }
  // Without a name it is the "=" of the path.
  if (link.n_oper_name > 0 ? !is_equality(list(link.n_oper_name, link.oper_name))
                           : !tables_.has_usual_operators()) {
    return;
  }
  membership m;
  m.outer = resolve(link.testexpr, in);
  if (m.outer == nothing) return;
  m.binds_outer = bindable.contains(m.outer);
  m.inner = link.subselect->select_stmt;
  memberships_.push_back(m);
}

// The occurrence whose sharding key this column certainly is.
int analysis::resolve(const node* column, const scope& in) const {
  if (!column || column->node_case != PG_QUERY__NODE__NODE_COLUMN_REF) return nothing;
  const auto& ref = *column->column_ref;
  const auto parts = name_parts(list(ref.n_fields, ref.fields));
  if (parts.size() != ref.n_fields || parts.empty() || parts.size() > 3) return nothing;
  if (parts.size() == 1) return resolve_name(parts[0], in);
  const std::string& table = parts[parts.size() - 2];
  if (parts.size() == 3) {
    // Which of several of one name in different schemas is meant would have to be found out.
    std::ptrdiff_t named = 0;
    for (const scope* s = &in; s; s = s->outer) {
      named += std::count_if(s->items.begin(), s->items.end(),
                             [&](const item& i) { return i.alias == table && !i.aliased; });
    }
    if (named > 1) return nothing;
  }
  for (const scope* s = &in; s; s = s->outer) {
    for (const auto& i : s->items) {
      if (i.alias != table) continue;
      if (parts.size() == 3 && (i.aliased || (!i.schema.empty() && i.schema != parts[0]))) continue;
      if (i.occurrence == nothing || i.renamed) return nothing;
      return occurrences_[static_cast<std::size_t>(i.occurrence)].column == parts.back()
                 ? i.occurrence
                 : nothing;
    }
  }
  return nothing;
}

// A name without table: if a sharded table of the innermost block has it as key, it is that one,
// or PostgreSQL calls it ambiguous. Other items may have it as well, so the search ends there.
int analysis::resolve_name(const std::string& column, const scope& in) const {
  for (const scope* s = &in; s; s = s->outer) {
    if (s->items.empty()) continue;
    const auto merged = s->merged.find(column);
    if (merged != s->merged.end()) return merged->second;
    int found = nothing;
    for (const auto& i : s->items) {
      if (i.occurrence == nothing || i.renamed ||
          occurrences_[static_cast<std::size_t>(i.occurrence)].column != column) {
        continue;
      }
      if (found != nothing) return nothing;
      found = i.occurrence;
    }
    return found;
  }
  return nothing;
}

bool analysis::is_cte(const PgQuery__RangeVar& range, const scope& in) {
  if (!text(range.schemaname).empty()) return false;
  const std::string name = text(range.relname);
  for (const scope* s = &in; s; s = s->outer) {
    if (std::find(s->ctes.begin(), s->ctes.end(), name) != s->ctes.end()) return true;
  }
  return false;
}

}  // namespace pgsled::plan
