#include "common/plan/names.hpp"

#include <algorithm>
#include <set>

#include "common/sql/lexer.hpp"
#include "common/sql/shape.hpp"

namespace pgsled::plan {
namespace {

// Elements of a search_path as SQL text: names, quoted names or strings. As PostgreSQL keeps it
// and takes it with the start-up message, a name without quotes may have other characters than
// SQL's. Nothing when a name would have to be decoded.
std::optional<std::vector<std::string>> parse_path(const std::string& path,
                                                   const std::string& user) {
  std::vector<std::string> schemas;
  sql::lexer lex{path, true};
  while (true) {
    sql::token t = lex.next();
    const sql::token first = t;
    sql::token last = t;
    for (; t.kind != sql::token_kind::end && !t.is_symbol(','); t = lex.next()) last = t;
    if (first.kind == sql::token_kind::unicode_id || first.kind == sql::token_kind::other_text) {
      return {};
    }
    std::string name;
    if (first.begin != last.begin || first.kind == sql::token_kind::symbol) {
      name = path.substr(first.begin, last.end - first.begin);
      std::transform(name.begin(), name.end(), name.begin(), sql::fold);
    } else if (first.kind == sql::token_kind::text) {
      name = sql::literal_value(path, {first.begin, first.size(), true});
    } else {
      name = sql::identifier(path, first);
    }
    if (!name.empty() && name != ",") schemas.push_back(name == "$user" ? user : name);
    if (t.kind == sql::token_kind::end) return schemas;
  }
}

// Is a key of this type in the catalog what the configuration says it is?
bool fits(placement::key_type wanted, const std::string& type) {
  switch (wanted) {
    case placement::key_type::bigint: return type == "int8" || type == "int4" || type == "int2";
    case placement::key_type::uuid: return type == "uuid";
    case placement::key_type::varchar: return type == "text" || type == "varchar";
  }
  return false;
}

}  // namespace

std::string in_quotes(std::string_view identifier) {
  std::string out = "\"";
  for (const char c : identifier) {
    out += c;
    if (c == '"') out += c;
  }
  return out + '"';
}

std::string sql_identifier(std::string_view identifier) {
  const bool plain =
      !identifier.empty() && !(identifier.front() >= '0' && identifier.front() <= '9') &&
      identifier.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == identifier.npos;
  return plain ? std::string{identifier} : in_quotes(identifier);
}

std::string written_name(const PgQuery__RangeVar& range) {
  const std::string schema = text(range.schemaname);
  return (schema.empty() ? "" : sql_identifier(schema) + ".") + sql_identifier(text(range.relname));
}

std::string shown_name(const PgQuery__RangeVar& range) {
  const std::string schema = text(range.schemaname);
  return in_quotes((schema.empty() ? "" : schema + ".") + text(range.relname));
}

std::optional<pg_error> not_certain(const relation& found, const std::string& shown) {
  if (found.kind == relation_kind::unknown) {
    return pg_error{"0A000",
                    "the columns of table " + shown + " are not known yet, so it may be sharded",
                    "Try again once the router has read the catalog of the database.", {}};
  }
  if (found.kind == relation_kind::ambiguous) {
    return pg_error{"0A000",
                    "which table " + shown + " is meant is not known: search_path has been "
                    "computed, or the catalog has it in none of its schemas",
                    "Write its schema, or set search_path to plain names.", {}};
  }
  return std::nullopt;
}

std::string catalog::path_of(const std::string& role) const {
  auto found = paths.find(role);
  if (found == paths.end()) found = paths.find({});
  return found != paths.end() ? found->second : "\"$user\", public";
}

names::names(const database_view& database, const request& from) : database_(database) {
  const auto role = database.roles.find(from.user);
  const std::string& user = role != database.roles.end() ? role->second : from.user;
  const std::string path =
      from.search_path.empty() ? database.catalog.path_of(user) : from.search_path;
  if (path != unknown_path) path_ = parse_path(path, user);
  path_of_role_ = from.search_path.empty();
  any_name_ = std::any_of(database.sharded.begin(), database.sharded.end(),
                          [](const sharded_table& t) { return t.name.empty(); });
}

bool names::has_usual_operators() const {
  if (!path_) return true;   // a path that is computed names schemas of tables
  const auto at = std::find(path_->begin(), path_->end(), "pg_catalog");
  return at == path_->begin() || at == path_->end();
}

bool names::in_path(std::string_view schema) const {
  return path_ && std::find(path_->begin(), path_->end(), schema) != path_->end();
}

// `written` is what the statement says, perhaps nothing; `wanted` may be empty for any schema.
bool names::is_schema(const std::string& wanted, const std::string& written) const {
  if (wanted.empty()) return true;
  return written.empty() ? in_path(wanted) : wanted == written;
}

const sharded_table* names::by_name(const std::string& schema, const std::string& name) const {
  for (const auto& table : database_.sharded) {
    if (table.name == name && is_schema(table.schema, schema)) return &table;
  }
  return nullptr;
}

const sharded_table* names::by_column(const catalog::table_columns& columns) const {
  for (const auto& table : database_.sharded) {
    if (table.name.empty() && (table.schema.empty() || table.schema == columns.schema) &&
        std::find(columns.columns.begin(), columns.columns.end(), table.column) !=
            columns.columns.end()) {
      return &table;
    }
  }
  return nullptr;
}

const catalog::table_columns* names::columns_of(const std::string& schema,
                                                const std::string& name) const {
  for (const auto& t : database_.catalog.tables) {
    if (t.name == name && t.schema == schema) return &t;
  }
  return nullptr;
}

bool names::hides(const std::string& schema, const std::string& name) const {
  return database_.catalog.hides_sharded.contains(schema + "." + name);
}

// PostgreSQL compares and stores by the type of the column; the rule has to be about the same.
relation names::placed(const sharded_table& table, const catalog::table_columns* columns) const {
  relation found{relation_kind::unplaceable, &table, columns};
  const auto rule = rule_of(table);
  if (!rule) {
    found.why = "which has data_type " + in_quotes(table.data_type);
    found.hint = "This version places keys of data_type bigint, uuid and varchar.";
    return found;
  }
  found.rule = *rule;
  const catalog::column_type* type = nullptr;
  if (columns && columns->types.size() == columns->columns.size()) {
    const auto& all = columns->columns;
    const auto at = std::find(all.begin(), all.end(), table.column) - all.begin();
    if (static_cast<std::size_t>(at) < all.size()) {
      type = &columns->types[static_cast<std::size_t>(at)];
    }
  }
  const bool number = rule->type == placement::key_type::bigint;
  if (!type && !number) {
    found.why = "whose type in the database is not known";
    found.hint = "Does the table exist, and has the router read the catalog since?";
  } else if (type && !fits(rule->type, type->name)) {
    found.why = "whose type in the database is " + type->name + ", not " +
                std::string(placement::name_of(rule->type));
    found.hint = "data_type bigint stands for smallint, integer and bigint, varchar for text and "
                 "varchar; other types cannot be keys.";
  } else if (columns && columns->differs.contains(table.column)) {
    found.why = "whose column " + in_quotes(table.column) + " " + columns->differs.at(table.column);
    found.hint = "Make the table the same on every shard.";
  } else if (type && !type->by_bytes) {
    found.why = "whose collation takes different texts for equal";
    found.hint = "Give the column a deterministic collation.";
  } else {
    found.kind = relation_kind::sharded;
    found.limit = type ? type->limit : 0;
  }
  return found;
}

// Of "schema.name".
void add_schemas(const std::set<std::string>& relations, const std::string& name,
                 std::set<std::string>& to) {
  for (const auto& one : relations) {
    if (one.ends_with("." + name)) to.insert(one.substr(0, one.size() - name.size() - 1));
  }
}

// Those that have a table of this name that is sharded, or what hides one.
std::set<std::string> names::schemas_with(const std::string& name) const {
  std::set<std::string> schemas;
  for (const auto& one : database_.catalog.tables) {
    if (one.name == name) schemas.insert(one.schema);
  }
  add_schemas(database_.catalog.hides_sharded, name, schemas);
  return schemas;
}

// By a name without a schema while the path is not known: what only one schema has is meant.
relation names::find_anywhere(const std::string& name) const {
  auto schemas = schemas_with(name);
  add_schemas(database_.catalog.namesakes, name, schemas);
  if (schemas.size() == 1) return find_in(*schemas.begin(), name);
  const bool elsewhere = std::any_of(
      database_.sharded.begin(), database_.sharded.end(),
      [&](const auto& table) { return table.name == name && !table.schema.empty(); });
  if (schemas.empty() && !elsewhere) return find_in({}, name);
  return {relation_kind::ambiguous};
}

relation names::find(const PgQuery__RangeVar& range) const {
  const std::string schema = text(range.schemaname), name = text(range.relname);
  if (!schema.empty()) return find_in(schema, name);
  if (!path_) return find_anywhere(name);
  // As PostgreSQL does: the first schema of the path that has one of this name.
  for (const auto& candidate : *path_) {
    if (columns_of(candidate, name) || hides(candidate, name)) return find_in(candidate, name);
    if (database_.catalog.namesakes.contains(candidate + "." + name)) return {};
  }
  // By its own configuration a server may have another path than the role: then it finds what is
  // elsewhere, else nothing.
  if (path_of_role_ && !schemas_with(name).empty()) return {relation_kind::ambiguous};
  return find_in(schema, name);   // the catalog does not have it
}

const sharded_table* names::listed(const PgQuery__RangeVar& range) const {
  return by_name(text(range.schemaname), text(range.relname));
}

const catalog::followed_column* names::followed(const PgQuery__RangeVar& range,
                                                const std::string& column) const {
  const std::string schema = text(range.schemaname), name = text(range.relname);
  for (const auto& one : database_.catalog.followed) {
    if (one.table != name || one.column != column) continue;
    if (schema.empty() ? !path_ || in_path(one.schema) : one.schema == schema) return &one;
  }
  return nullptr;
}

bool names::temporary_in_path() const {
  return path_ && std::any_of(path_->begin(), path_->end(), [](const auto& schema) {
           return schema.starts_with("pg_temp");
         });
}

bool names::sharded_by(const std::string& schema, const std::string& column) const {
  return std::any_of(database_.sharded.begin(), database_.sharded.end(), [&](const auto& table) {
    return table.name.empty() && table.column == column && is_schema(table.schema, schema);
  });
}

// `schema` is empty for a name that the catalog has in none that it could be in.
relation names::find_in(const std::string& schema, const std::string& name) const {
  // A view may have the name of a table that is sharded.
  if (hides(schema, name)) return {relation_kind::hidden};
  const auto* columns = columns_of(schema, name);
  const sharded_table* table = by_name(schema, name);
  if (!table && columns) table = by_column(*columns);
  if (table) {
    return placed(*table, columns);
  }
  if (schema == "pg_catalog" || schema == "information_schema" ||
      (schema.empty() && name.starts_with("pg_"))) {
    return {relation_kind::system};
  }
  if (any_name_ && !database_.catalog.loaded) return {relation_kind::unknown};
  return {relation_kind::omni};
}

}  // namespace pgsled::plan
