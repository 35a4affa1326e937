#include "common/plan/keys.hpp"

#include <algorithm>
#include <limits>

#include "common/placement/value.hpp"
#include "common/sql/lexer.hpp"

namespace pgsled::plan {

using placement::bigint_from_text;

bool operator==(const key& a, const key& b) {
  return a.source == b.source && a.number == b.number && a.negated == b.negated &&
         a.constant == b.constant;
}

bool is_integer_type(const PgQuery__TypeName* type) {
  if (!type || type->setof || type->pct_type || type->n_array_bounds > 0 || type->n_typmods > 0) {
    return false;
  }
  const auto parts = name_parts(list(type->n_names, type->names));
  if (parts.empty() || parts.size() > 2 || (parts.size() == 2 && parts[0] != "pg_catalog")) {
    return false;
  }
  return parts.back() == "int8" || parts.back() == "int4" || parts.back() == "int2";
}

std::optional<key> key_reader::read(const node* expression) {
  why_.clear();
  while (expression && expression->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
    if (!is_integer_type(expression->type_cast->type_name)) return std::nullopt;
    expression = expression->type_cast->arg;
  }
  if (!expression) return std::nullopt;
  if (expression->node_case == PG_QUERY__NODE__NODE_PARAM_REF) {
    return parameter(*expression->param_ref);
  }
  if (expression->node_case == PG_QUERY__NODE__NODE_A_CONST) return constant(*expression->a_const);
  return std::nullopt;
}

std::optional<key> key_reader::parameter(const PgQuery__ParamRef& ref) {
  if (ref.number < 1 || ref.number > 65535) return std::nullopt;
  const auto index = static_cast<std::size_t>(ref.number - 1);
  const std::uint32_t type =
      index < request_.parameter_types.size() ? request_.parameter_types[index] : 0;
  constexpr std::uint32_t unspecified = 0, int8 = 20, int2 = 21, int4 = 23;
  if (type != unspecified && type != int8 && type != int2 && type != int4) {
    why_ = "Parameter $" + std::to_string(ref.number) +
           " is declared with a type that is not an integer.";
    return std::nullopt;
  }
  key found;
  found.source = key_source::parameter;
  found.number = static_cast<std::uint16_t>(index);
  return found;
}

std::optional<key> key_reader::constant(const PgQuery__AConst& value) {
  if (value.isnull) {
    why_ = "The value is NULL.";
    return std::nullopt;
  }
  std::string digits;
  switch (value.val_case) {
    case PG_QUERY__A__CONST__VAL_IVAL: digits = std::to_string(value.ival->ival); break;
    case PG_QUERY__A__CONST__VAL_FVAL: digits = text(value.fval->fval); break;
    case PG_QUERY__A__CONST__VAL_SVAL: digits = text(value.sval->sval); break;
    default: return std::nullopt;
  }
  const bool is_text = value.val_case == PG_QUERY__A__CONST__VAL_SVAL;
  const bool negative = !is_text && digits.starts_with('-');
  // An integer beyond int8 is a numeric to PostgreSQL, and so is one whose sign makes it fit.
  const bool whole = is_text || bigint_from_text(std::string_view{digits}.substr(negative ? 1 : 0));
  if (!whole) {
    why_ = "The value is not an integer that fits bigint.";
    return std::nullopt;
  }
  if (value.location >= 0) {
    if (auto lifted = literal_at(static_cast<std::uint32_t>(value.location))) {
      if (lifted->source == key_source::literal) return lifted;
      why_ = "The statement has too many literals.";
      return std::nullopt;
    }
  }
  const auto number = bigint_from_text(digits);
  if (!number) {
    why_ = "The value is not an integer that fits bigint.";
    return std::nullopt;
  }
  key found;
  found.source = key_source::constant;
  found.constant = *number;
  return found;
}

// The parser gives a negated number the location of its (first) minus sign. A key without source:
// lifted, but its number is beyond what a plan can say.
std::optional<key> key_reader::literal_at(std::uint32_t location) {
  if (location >= request_.sql.size()) return std::nullopt;
  sql::lexer lex{request_.sql, true, false, location};
  bool negated = false;
  sql::token t = lex.next();
  for (; t.is_symbol('-') || t.is_symbol('('); t = lex.next()) negated ^= t.is_symbol('-');
  const auto& offsets = request_.literal_offsets;
  const auto found = std::find(offsets.begin(), offsets.end(), t.begin);
  const auto index = static_cast<std::size_t>(found - offsets.begin());
  if (found == offsets.end()) return std::nullopt;
  key lifted;
  if (index > std::numeric_limits<std::uint16_t>::max()) return lifted;
  lifted.source = key_source::literal;
  lifted.number = static_cast<std::uint16_t>(index);
  lifted.negated = negated;
  return lifted;
}

void key_reader::seen(const PgQuery__ParamRef& ref) { all_[ref.number].insert(&ref); }

void key_reader::use(const node* expression) {
  while (expression && expression->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
    expression = expression->type_cast->arg;
  }
  if (expression && expression->node_case == PG_QUERY__NODE__NODE_PARAM_REF) {
    as_integer_[expression->param_ref->number].insert(expression->param_ref);
  }
}

bool key_reader::certain(const key& from) const {
  if (from.source != key_source::parameter) return true;
  const std::size_t index = from.number;
  if (index < request_.parameter_types.size() && request_.parameter_types[index] != 0) return true;
  const auto all = all_.find(static_cast<int>(index) + 1);
  const auto safe = as_integer_.find(static_cast<int>(index) + 1);
  const std::size_t uses = all == all_.end() ? 0 : all->second.size();
  const std::size_t sure = safe == as_integer_.end() ? 0 : safe->second.size();
  return uses == sure;
}

}  // namespace pgsled::plan
