#include "common/plan/sequences.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "common/plan/analysis.hpp"

namespace pgsled::plan {
namespace {

// As many shards can count beside each other: services/frontend/client/shards.cpp gives shard s
// START + s * INCREMENT and then every 1024th value.
constexpr std::int64_t stride = 1024;

// A number that does not fit a node for integers is kept as text. Nothing: none is given, or
// PostgreSQL will say what is wrong with it.
std::optional<std::int64_t> number_of(const node* value) {
  if (!value) return std::nullopt;
  if (value->node_case == PG_QUERY__NODE__NODE_INTEGER) return value->integer->ival;
  if (value->node_case != PG_QUERY__NODE__NODE_FLOAT) return std::nullopt;
  std::string digits = text(value->float_->fval);
  if (digits.starts_with('+')) digits.erase(0, 1);
  std::int64_t number = 0;
  const auto* const end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data(), end, number);
  if (read.ec != std::errc{} || read.ptr != end) return std::nullopt;
  return number;
}

struct sequence_options {
  std::optional<std::int64_t> start, increment, least, most;
  bool cycle = false;
};

sequence_options read_options(node_list from) {
  sequence_options out;
  for (const node* each : from) {
    if (each->node_case != PG_QUERY__NODE__NODE_DEF_ELEM) continue;
    const auto name = text(each->def_elem->defname);
    const node* value = each->def_elem->arg;
    if (name == "start") out.start = number_of(value);
    if (name == "increment") out.increment = number_of(value);
    if (name == "minvalue") out.least = number_of(value);
    if (name == "maxvalue") out.most = number_of(value);
    if (name == "cycle") {
      out.cycle = !value || value->node_case != PG_QUERY__NODE__NODE_BOOLEAN ||
                  value->boolean->boolval;
    }
  }
  return out;
}

// Does every shard have more than its first value?
bool has_room(const sequence_options& o) {
  const auto step = o.increment.value_or(1);
  const bool up = step > 0;
  const auto& limit = up ? o.most : o.least;
  if (!limit || step == 0) return true;
  const auto start = o.start.value_or(up ? o.least.value_or(1) : o.most.value_or(-1));
  // Without a sign no difference of two such numbers is too large.
  const auto wide = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  if (up ? *limit < start : *limit > start) return true;   // PostgreSQL says so itself
  const auto values = up ? (wide(*limit) - wide(start)) / wide(step)
                         : (wide(start) - wide(*limit)) / (0 - wide(step));
  return values >= wide(stride);
}

bool has_name(const PgQuery__TypeName* type, std::initializer_list<std::string_view> names) {
  if (!type) return false;
  const auto parts = name_parts(list(type->n_names, type->names));
  return parts.size() == 1 && std::find(names.begin(), names.end(), parts[0]) != names.end();
}

}  // namespace

bool has_sequence(const PgQuery__ColumnDef& column) {
  if (!text(column.identity).empty()) return true;
  if (has_name(column.type_name,
               {"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"})) {
    return true;
  }
  const auto constraints = list(column.n_constraints, column.constraints);
  return std::any_of(constraints.begin(), constraints.end(), [](const node* each) {
    return each->node_case == PG_QUERY__NODE__NODE_CONSTRAINT &&
           each->constraint->contype == PG_QUERY__CONSTR_TYPE__CONSTR_IDENTITY;
  });
}

std::optional<plan> check_sequence(node_list options) {
  const auto given = read_options(options);
  if (given.cycle) {
    return refused("a sequence with CYCLE begins again with values that other shards have given",
                   "Leave CYCLE out.");
  }
  if (given.increment && *given.increment != 0 && *given.increment % stride == 0) {
    return refused("INCREMENT of a sequence is a multiple of 1024, by which each shard counts to "
                   "have values of its own",
                   "Use another INCREMENT.");
  }
  if (!has_room(given)) {
    return refused("a sequence has no room between START and its limit for values of every shard",
                   "Every shard takes each 1024th value: use a wider MAXVALUE or MINVALUE, or "
                   "none.");
  }
  return std::nullopt;
}

std::optional<plan> check_sequence(const PgQuery__ColumnDef& column) {
  for (const node* each : list(column.n_constraints, column.constraints)) {
    if (each->node_case != PG_QUERY__NODE__NODE_CONSTRAINT ||
        each->constraint->contype != PG_QUERY__CONSTR_TYPE__CONSTR_IDENTITY) {
      continue;
    }
    const auto& identity = *each->constraint;
    if (auto no = check_sequence(list(identity.n_options, identity.options))) return no;
  }
  return std::nullopt;
}

std::optional<plan> check_sequence_change(node_list options) {
  for (const node* each : options) {
    if (each->node_case != PG_QUERY__NODE__NODE_DEF_ELEM) continue;
    const auto name = text(each->def_elem->defname);
    for (const char* values : {"start", "restart", "increment", "minvalue", "maxvalue", "cycle"}) {
      if (name != values) continue;
      return refused("a sequence has other values on each shard, and the same change everywhere "
                     "would give values twice",
                     "Connect to each shard directly, and set it there to a value of its own.");
    }
  }
  return std::nullopt;
}

}  // namespace pgsled::plan
