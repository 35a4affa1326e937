#include "common/plan/steady.hpp"

#include <algorithm>

#include "common/plan/names.hpp"

namespace pgsled::plan {
namespace {

bool is_time(const PgQuery__TypeName* type) {
  if (!type) return false;
  const auto parts = name_parts(list(type->n_names, type->names));
  return !parts.empty() && (parts.back().starts_with("time") || parts.back() == "date");
}

// The moment in which a text is read as a time is in it: 'now', 'today 12:00'.
bool says_now(const node* constant) {
  std::string said = string_constant(constant);
  std::transform(said.begin(), said.end(), said.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* word : {"now", "today", "tomorrow", "yesterday"}) {
    if (said.find(word) != said.npos) return true;
  }
  return false;
}

std::string unsteady_here(const tree_message* m, const catalog& known) {
  const auto* type = m->descriptor;
  if (type == &pg_query__sqlvalue_function__descriptor) {
    return "CURRENT_TIMESTAMP, CURRENT_USER or the like";
  }
  if (type == &pg_query__range_table_sample__descriptor) return "TABLESAMPLE";
  if (type == &pg_query__type_cast__descriptor) {
    const auto& cast = as<PgQuery__TypeCast>(m);
    if (is_time(cast.type_name) && says_now(cast.arg)) return "the time of now";
  }
  if (type == &pg_query__func_call__descriptor) {
    const auto name = function_name(as<PgQuery__FuncCall>(m));
    if (!known.immutable_functions.contains(name)) return "function " + in_quotes(name);
  }
  return {};
}

std::string unsafe_here(const tree_message* m, const catalog& known) {
  if (m->descriptor != &pg_query__func_call__descriptor || !known.loaded) return {};
  const auto name = function_name(as<PgQuery__FuncCall>(m));
  return known.safe_functions.contains(name) ? std::string{} : "function " + in_quotes(name);
}

}  // namespace

std::string unsteady(const node* expression, const catalog& known) {
  return first_said(as_message(expression),
                    [&](const tree_message* m) { return unsteady_here(m, known); });
}

std::string unsteady(const node* expression, const PgQuery__TypeName* type, const catalog& known) {
  return is_time(type) && says_now(expression) ? "the time of now" : unsteady(expression, known);
}

std::string reads_tables(const node* expression, const catalog& known) {
  return first_said(as_message(expression),
                    [&](const tree_message* m) { return unsafe_here(m, known); });
}

}  // namespace pgsled::plan
