#include "common/plan/copy_statement.hpp"

#include <algorithm>

#include "common/plan/analysis.hpp"
#include "common/plan/steady.hpp"
#include "common/plan/utility.hpp"

namespace pgsled::plan {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The text of an option's value; a number's digits; empty when there is none.
std::string value_of(const node* value) {
  if (!value) return {};
  switch (value->node_case) {
    case PG_QUERY__NODE__NODE_STRING: return text(value->string->sval);
    case PG_QUERY__NODE__NODE_INTEGER: return std::to_string(value->integer->ival);
    case PG_QUERY__NODE__NODE_BOOLEAN: return value->boolean->boolval ? "true" : "false";
    default: return {};
  }
}

// As PostgreSQL reads an option that is true or false; alone it is true.
bool flag_of(const node* value) {
  const auto said = lower(value_of(value));
  return !value || said == "true" || said == "on" || said == "1";
}

std::vector<std::string> columns_of(const node* value, bool& all) {
  if (!value) return {};
  if (value->node_case == PG_QUERY__NODE__NODE_A_STAR) all = true;
  if (value->node_case != PG_QUERY__NODE__NODE_LIST) return {};
  const auto items = list(value->list->n_items, value->list->items);
  if (items.count == 1 && (*items.begin())->node_case == PG_QUERY__NODE__NODE_A_STAR) all = true;
  return name_parts(items);
}

struct reading {
  copy::options options;
  // Why the input cannot be split; empty: it can.
  std::string problem, hint = "Leave the option out.";
};

// What is wrong with an option for PostgreSQL, it says itself: the statement goes there first.
reading read_options(node_list from) {
  reading out;
  auto& o = out.options;
  std::optional<std::string> delimiter, null_text, quote, escape;
  for (const node* each : from) {
    if (each->node_case != PG_QUERY__NODE__NODE_DEF_ELEM) continue;
    const auto name = lower(text(each->def_elem->defname));
    const node* value = each->def_elem->arg;
    if (name == "format") {
      const auto format = value_of(value);
      o.format = format == "csv" ? copy::format::csv
                 : format == "binary" ? copy::format::binary : copy::format::text;
    } else if (name == "delimiter") {
      delimiter = value_of(value);
    } else if (name == "null") {
      null_text = value_of(value);
    } else if (name == "quote") {
      quote = value_of(value);
    } else if (name == "escape") {
      escape = value_of(value);
    } else if (name == "default") {
      o.has_default = true;
      o.default_text = value_of(value);
    } else if (name == "header") {
      const auto said = lower(value_of(value));
      o.header = flag_of(value) || said == "match";
      if (said.find_first_not_of("01") == said.npos || o.header || said == "false" ||
          said == "off") {
        continue;
      }
      out.problem = "its option HEADER " + said + " is not known";
    } else if (name == "force_not_null") {
      o.not_null = columns_of(value, o.all_not_null);
    } else if (name == "force_null") {
      o.null = columns_of(value, o.all_null);
    } else if (name == "encoding") {
      o.encoding = value_of(value);
    } else if (name == "on_error") {
      if (lower(value_of(value)) == "stop") continue;
      out.problem = "ON_ERROR " + value_of(value) + " leaves rows out that have no place";
      out.hint = "Use ON_ERROR stop.";
    } else if (name != "freeze" && name != "force_quote" && name != "log_verbosity") {
      out.problem = "its option " + in_quotes(name) + " is not known";
    }
  }
  const bool csv = o.format == copy::format::csv;
  const auto one = [](const std::optional<std::string>& given, char otherwise) {
    return given && !given->empty() ? given->front() : otherwise;
  };
  o.delimiter = one(delimiter, csv ? ',' : '\t');
  o.null_text = null_text.value_or(csv ? "" : "\\N");
  o.quote = one(quote, '"');
  o.escape = one(escape, o.quote);
  return out;
}

// Each shard picks rows by itself: from the same input for a table that is on every shard, from its
// own part for a sharded one.
std::optional<plan> check_where(const PgQuery__CopyStmt& s, bool sharded, const catalog& known) {
  const std::string shown = shown_name(*s.relation);
  if (sharded) {
    const auto why = reads_tables(s.where_clause, known);
    if (why.empty()) return std::nullopt;
    return refused("COPY into sharded table " + shown + " with " + why +
                       " in WHERE, which may read sharded tables",
                   "Leave the rows out of the input, or delete them afterwards.");
  }
  const auto why = unsteady(s.where_clause, known);
  if (why.empty()) return std::nullopt;
  return refused("COPY into table " + shown + ", which is on every shard, with " + why +
                     " in WHERE: each shard may take other rows",
                 "Leave the rows out of the input, or compare with plain values.");
}

}  // namespace

plan plan_copy(const PgQuery__CopyStmt& s, const database_view& database, const request& from,
               const names& tables) {
  if (s.is_program || !text(s.filename).empty()) {
    return refused(std::string("COPY ") + (s.is_from ? "FROM" : "TO") +
                       " a file or program of the server would use that of one shard",
                   s.is_from ? "Use COPY … FROM STDIN, or \\copy of psql."
                             : "Use COPY … TO STDOUT, or \\copy of psql.");
  }
  if (s.query) {
    plan p = plan_statement(*s.query, database, from, tables);
    if (p.destination != destination::all_shards) return p;
    return refused("COPY of a statement that goes to all shards",
                   "Use its RETURNING by itself.");
  }
  if (!s.relation) return refused("COPY without a table");
  const relation found = tables.find(*s.relation);
  const std::string shown = shown_name(*s.relation);
  switch (found.kind) {
    case relation_kind::sharded:
    case relation_kind::omni: break;
    case relation_kind::system: {
      if (s.is_from) return refused("COPY into table " + shown + " of the system",
                                     "Connect to one server directly.");
      return {};
    }
    case relation_kind::ambiguous:
      return refused("COPY of " + shown + ", because search_path has been computed",
                     "Write its schema, or set search_path to plain names.");
    case relation_kind::unplaceable:
      return refused("COPY of table " + shown + ", " + found.why, found.hint);
    case relation_kind::hidden:
    case relation_kind::unknown:
      return refused("COPY of " + shown + ", which may hold rows of sharded tables",
                     "Name the sharded table itself.");
  }
  const bool sharded = found.kind == relation_kind::sharded;
  if (auto no = check_where(s, sharded, database.catalog)) return *no;
  plan p;
  p.access = s.is_from ? access::write : access::read;
  if (!s.is_from && !sharded) return p;   // the same on every shard
  p.destination = s.is_from ? destination::copy_in : destination::copy_out;
  p.copy.table = written_name(*s.relation);
  p.copy.name = text(s.relation->relname);
  p.copy.columns = name_parts(list(s.n_attlist, s.attlist));
  auto read = read_options(list(s.n_options, s.options));
  p.copy.options = std::move(read.options);
  if (!sharded) return p;
  p.rule = found.rule;
  p.copy.key = found.table->column;
  if (!s.is_from) return p;
  if (!read.problem.empty()) {
    return refused("COPY into sharded table " + shown + ": " + read.problem, read.hint);
  }
  const auto& columns = p.copy.columns;
  if (!columns.empty() && std::find(columns.begin(), columns.end(), p.copy.key) == columns.end()) {
    return refused("COPY into sharded table " + shown + " without its sharding key, column " +
                       in_quotes(p.copy.key),
                   "A row is placed by its key: name the column.");
  }
  return p;
}

}  // namespace pgsled::plan
