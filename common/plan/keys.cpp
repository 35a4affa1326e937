#include "common/plan/keys.hpp"

#include <algorithm>
#include <limits>

#include "common/sql/lexer.hpp"

namespace pgsled::plan {

using placement::bigint_from_text;
using placement::key_type;

bool operator==(const key& a, const key& b) {
  return a.source == b.source && a.number == b.number && a.negated == b.negated &&
         a.constant == b.constant && a.limit == b.limit && a.text == b.text;
}

std::optional<key_type> key_type_of(const PgQuery__TypeName* type) {
  if (!type || type->setof || type->pct_type || type->n_array_bounds > 0 || type->n_typmods > 0) {
    return std::nullopt;
  }
  const auto parts = name_parts(list(type->n_names, type->names));
  if (parts.empty() || parts.size() > 2 || (parts.size() == 2 && parts[0] != "pg_catalog")) {
    return std::nullopt;
  }
  const auto& name = parts.back();
  if (name == "int8" || name == "int4" || name == "int2") return key_type::bigint;
  if (name == "uuid") return key_type::uuid;
  if (name == "text" || name == "varchar") return key_type::varchar;
  return std::nullopt;
}

std::optional<key> key_reader::read(const node* expression, key_type type, std::uint32_t limit) {
  why_.clear();
  bool cast = false;
  while (expression && expression->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
    if (key_type_of(expression->type_cast->type_name) != type) return std::nullopt;
    expression = expression->type_cast->arg;
    cast = true;
  }
  if (!expression) return std::nullopt;
  std::optional<key> found;
  if (expression->node_case == PG_QUERY__NODE__NODE_PARAM_REF) {
    found = parameter(*expression->param_ref, type, cast);
  } else if (expression->node_case == PG_QUERY__NODE__NODE_A_CONST) {
    const auto& value = *expression->a_const;
    if (value.isnull) {
      why_ = "The value is NULL.";
      return std::nullopt;
    }
    found = type == key_type::bigint ? number(value) : string(value, type);
  }
  if (found) found->limit = limit;
  return found;
}

std::optional<key> key_reader::parameter(const PgQuery__ParamRef& ref, key_type type, bool cast) {
  if (ref.number < 1 || ref.number > 65535) return std::nullopt;
  const auto index = static_cast<std::size_t>(ref.number - 1);
  const std::uint32_t declared =
      index < request_.parameter_types.size() ? request_.parameter_types[index] : 0;
  constexpr std::uint32_t unspecified = 0, int8 = 20, int2 = 21, int4 = 23, text = 25,
                          varchar = 1043, uuid = 2950;
  const char* wanted = "";
  bool good = declared == unspecified;
  switch (type) {
    case key_type::bigint:
      wanted = "an integer";
      good = good || declared == int8 || declared == int2 || declared == int4;
      break;
    case key_type::uuid:
      // A text that is cast is read as a literal would be; drivers declare texts and cast.
      wanted = "uuid";
      good = good || declared == uuid || (cast && (declared == text || declared == varchar));
      break;
    case key_type::varchar:
      wanted = "text or varchar";
      good = good || declared == text || declared == varchar;
      break;
  }
  if (!good) {
    why_ = "Parameter $" + std::to_string(ref.number) + " is declared with a type that is not " +
           wanted + ".";
    return std::nullopt;
  }
  key found;
  found.source = key_source::parameter;
  found.number = static_cast<std::uint16_t>(index);
  return found;
}

// `found`: the constant is one of the lifted literals. Nothing, although it is: too many of them.
std::optional<key> key_reader::lifted(const PgQuery__AConst& value, bool& found) {
  found = false;
  if (value.location < 0) return std::nullopt;
  auto literal = literal_at(static_cast<std::uint32_t>(value.location));
  found = literal.has_value();
  if (literal && literal->source == key_source::literal) return literal;
  if (literal) why_ = "The statement has too many literals.";
  return std::nullopt;
}

std::optional<key> key_reader::number(const PgQuery__AConst& value) {
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
  bool is_lifted = false;
  auto literal = lifted(value, is_lifted);
  if (is_lifted) return literal;
  const auto constant = bigint_from_text(digits);
  if (!constant) {
    why_ = "The value is not an integer that fits bigint.";
    return std::nullopt;
  }
  key found;
  found.source = key_source::constant;
  found.constant = *constant;
  return found;
}

// A number is no uuid, and a text column compared with one is an error.
std::optional<key> key_reader::string(const PgQuery__AConst& value, key_type type) {
  if (value.val_case != PG_QUERY__A__CONST__VAL_SVAL) {
    why_ = type == key_type::uuid ? "The value is not a uuid." : "The value is not a text.";
    return std::nullopt;
  }
  bool is_lifted = false;
  auto literal = lifted(value, is_lifted);
  if (is_lifted) return literal;
  key found;
  found.source = key_source::constant;
  found.text = text(value.sval->sval);
  if (type == key_type::uuid) {
    const auto bytes = placement::uuid_from_text(found.text);
    if (!bytes) {
      why_ = "The value is not a uuid.";
      return std::nullopt;
    }
    found.text = placement::uuid_to_text(*bytes);   // one spelling, so that equal ones are equal
  }
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
  const auto found = std::lower_bound(offsets.begin(), offsets.end(), t.begin);   // as in the text
  const auto index = static_cast<std::size_t>(found - offsets.begin());
  if (found == offsets.end() || *found != t.begin) return std::nullopt;
  key lifted;
  if (index > std::numeric_limits<std::uint16_t>::max()) return lifted;
  lifted.source = key_source::literal;
  lifted.number = static_cast<std::uint16_t>(index);
  lifted.negated = negated;
  return lifted;
}

void key_reader::seen(const PgQuery__ParamRef& ref) { all_[ref.number].insert(&ref); }

void key_reader::use(const node* expression, key_type type) {
  while (expression && expression->node_case == PG_QUERY__NODE__NODE_TYPE_CAST) {
    expression = expression->type_cast->arg;
  }
  if (expression && expression->node_case == PG_QUERY__NODE__NODE_PARAM_REF) {
    typed_[type][expression->param_ref->number].insert(expression->param_ref);
  }
}

bool key_reader::certain(const key& from, key_type type) const {
  if (from.source != key_source::parameter) return true;
  const std::size_t index = from.number;
  if (index < request_.parameter_types.size() && request_.parameter_types[index] != 0) return true;
  const auto count = [&](const uses& of) {
    const auto found = of.find(static_cast<int>(index) + 1);
    return found == of.end() ? 0 : found->second.size();
  };
  const auto safe = typed_.find(type);
  return count(all_) == (safe == typed_.end() ? 0 : count(safe->second));
}

}  // namespace pgsled::plan
