#include "common/moving/follower.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "common/commit/statements.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::moving {

namespace {

using commit::statements::literal;
using kind = wal::field::kind;

pg_error lost(const table& of, std::string_view why) {
  return {"55000", fmt::format("the changes of table {} cannot be followed: {}", of.label(), why),
          {}, {}};
}

std::string value(const wal::field& from) {
  return from.what == kind::null ? std::string(" NULL") : literal(from.value);
}

// One of the rows that are equal to `from` in every column, as the server writes them; by their
// place, because there may be several. The sharding key comes first, as an index would know it.
result<std::string> one_of_equal(const table& of, const wal::tuple& from) {
  std::string where;
  if (!of.whole() && from[of.key].what == kind::text) {
    where = moving::quoted(of.columns[of.key].name) + " =" + literal(from[of.key].value) + " AND ";
  }
  for (std::size_t i = 0, told = 0; i < from.size(); ++i) {
    if (from[i].what == kind::absent) continue;   // no row had it then, nor any other value of it
    if (from[i].what != kind::text && from[i].what != kind::null) {
      return tl::unexpected(lost(of, "a row came without all of its columns"));
    }
    const auto name = moving::quoted(of.columns[i].name);
    if (told++ > 0) where += " AND ";
    // num_nulls(): IS NULL is also true of a composite value of nulls.
    where += fmt::format("num_nulls({}) = {}", name, from[i].what == kind::null ? 1 : 0);
    if (from[i].what == kind::text) {
      where += fmt::format(" AND format('%s', {}) ={}", name, literal(from[i].value));
    }
  }
  return fmt::format("ctid = (SELECT ctid FROM ONLY {} WHERE {} LIMIT 1)", in_sql(of), where);
}

// The row to change: as the primary key (and the sharding key) of `from` name it.
result<std::string> named(const table& of, const wal::tuple& from) {
  if (of.primary.empty()) return one_of_equal(of, from);
  std::string where;
  const auto add = [&](std::size_t place) {
    if (from[place].what != kind::text) return false;
    if (!where.empty()) where += " AND ";
    where += moving::quoted(of.columns[place].name) + " =" + literal(from[place].value);
    return true;
  };
  for (const std::size_t place : of.primary) {
    if (!add(place)) return tl::unexpected(lost(of, "a row came without its primary key"));
  }
  if (!of.whole() && !of.key_in_primary() && !add(of.key)) {
    return tl::unexpected(lost(of, "a row came without its sharding key"));
  }
  return where;
}

// The rows that may be others after a change of `from`, for checksum().
result<std::string> touched(const table& of, const wal::tuple& from) {
  if (!of.primary.empty()) return named(of, from);
  if (of.whole()) return std::string("true");
  return value(from[of.key]);
}

// What of `row` was not changed is what it was.
wal::tuple merged(wal::tuple row, const wal::tuple& old) {
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i].what == kind::unchanged) row[i] = old[i];
  }
  return row;
}

std::string update_sql(const table& of, const wal::tuple& row, const std::string& where) {
  std::string set;
  for (std::size_t i = 0; i < row.size(); ++i) {
    // What is always generated cannot be set. SET … = DEFAULT changes it: the comparison sees that.
    if (row[i].what == kind::unchanged || row[i].what == kind::absent ||
        of.columns[i].identity_always) {
      continue;
    }
    if (!set.empty()) set += ", ";
    set += moving::quoted(of.columns[i].name) + " =" + value(row[i]);
  }
  for (std::size_t i = 0; i < row.size() && set.empty(); ++i) {   // what could not be set counts, too
    if (row[i].what == kind::absent || of.columns[i].identity_always) continue;
    set = moving::quoted(of.columns[i].name) + " = " + moving::quoted(of.columns[i].name);
  }
  if (set.empty()) return {};
  return fmt::format("UPDATE ONLY {} SET {} WHERE {}", in_sql(of), set, where);
}

}  // namespace

result<std::string> insertion(const table& of, const wal::tuple& row) {
  std::string values, names;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i].what == kind::absent) continue;
    if (row[i].what == kind::unchanged) {
      auto error = lost(of, "a row went to another shard, and a value of it that was not changed is "
                            "not in the server's log");
      error.hint = fmt::format("ALTER TABLE {} REPLICA IDENTITY FULL  on the servers that it comes "
                               "from, and begin again.", in_sql(of));
      return tl::unexpected(std::move(error));
    }
    if (!values.empty()) values += ",";
    values += value(row[i]);
    names += (names.empty() ? "" : ", ") + moving::quoted(of.columns[i].name);
  }
  return fmt::format("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})", in_sql(of),
                     names, values);
}

result<std::string> known_by(const table& of, const wal::tuple& row) {
  PGSLED_ASSERT(!of.primary.empty());
  return named(of, row);
}

kept_row kept(const wal::tuple& from) {
  kept_row to;
  to.reserve(from.size());
  for (const wal::field& one : from) to.push_back({one.what, std::string(one.value)});
  return to;
}

wal::tuple borrowed(const kept_row& from) {
  wal::tuple to;
  to.reserve(from.size());
  for (const kept_field& one : from) to.push_back({one.what, one.value});
  return to;
}

follower::follower(std::vector<table> tables, selection rows, lsn agreed, bool keep_rows)
    : tables_(std::move(tables)), rows_(std::move(rows)), moving_(rows_.buckets), agreed_(agreed),
      keep_rows_(keep_rows) {
  for (const std::uint32_t bucket : rows_.moving) moving_.at(bucket) = true;
  for (const table& one : tables_) {
    mappings_.emplace_back();
    if (one.by.mapping) mappings_.back().emplace(*one.by.mapping);
  }
}

follow_action follower::one_row(const table& of, std::string sql, std::vector<std::string> rows,
                                bool had, const wal::tuple* after) const {
  follow_action made;
  made.sql = std::move(sql);
  made.touches = 1;
  made.table = static_cast<std::size_t>(&of - tables_.data());
  made.rows = std::move(rows);
  if (keep_rows_ && !of.primary.empty()) {
    made.had = had;
    if (after != nullptr) made.row = kept(*after);
  }
  return made;
}

result<std::vector<follow_action>> follower::feed(const wal::any& message) {
  actions todo;
  std::optional<pg_error> error;
  if (const auto* begin = std::get_if<wal::begin>(&message)) {
    ours_ = false;
    before_ = begin->final_position < agreed_;
  } else if (const auto* from = std::get_if<wal::origin>(&message)) {
    ours_ = from->name.starts_with(origin_prefix);
  } else if (const auto* end = std::get_if<wal::commit>(&message)) {
    follow_action made;
    made.what = follow_action::kind::commit;
    made.end = end->end;
    todo.push_back(std::move(made));
  } else if (const auto* note = std::get_if<wal::message>(&message)) {
    if (note->prefix == marker_prefix) {
      follow_action made;
      made.what = follow_action::kind::marker;
      made.content = note->content;
      todo.push_back(std::move(made));
    }
  } else if (const auto* relation = std::get_if<wal::relation>(&message)) {
    error = learn(*relation);
  } else if (!ours_) {
    if (const auto* row = std::get_if<wal::insert>(&message)) {
      error = follow(*row, &follower::insert, todo);
    }
    if (const auto* row = std::get_if<wal::update>(&message)) {
      error = follow(*row, &follower::update, todo);
    }
    if (const auto* row = std::get_if<wal::erase>(&message)) {
      error = follow(*row, &follower::erase, todo);
    }
    if (const auto* all = std::get_if<wal::truncate>(&message)) error = truncate(*all, todo);
  }
  if (error) return tl::unexpected(std::move(*error));
  return todo;
}

std::optional<pg_error> follower::learn(const wal::relation& from) {
  auto& to = relations_[from.id];
  to = {};
  for (const table& one : tables_) {
    if (one.schema == from.schema && one.name == from.name) to.of = &one;
  }
  if (to.of == nullptr) return std::nullopt;
  const auto& columns = to.of->columns;
  bool same = columns.size() == from.columns.size();
  for (std::size_t i = 0; same && i < columns.size(); ++i) {
    same = columns[i].name == from.columns[i].name &&
           columns[i].type_number == from.columns[i].type &&
           columns[i].modifier == from.columns[i].modifier;
  }
  if (same) return std::nullopt;
  if (before_) return learn_older(from, to);
  columns_changed_ = true;
  return lost(*to.of, "its columns were changed during the move");
}

// What the table was before its columns were changed. A value of another type may be another one
// now, so that its rows cannot be told again as they were.
std::optional<pg_error> follower::learn_older(const wal::relation& from, known& to) const {
  const auto& columns = to.of->columns;
  for (const wal::column& one : from.columns) {
    const auto now = std::find_if(columns.begin(), columns.end(),
                                  [&](const table_column& c) { return c.name == one.name; });
    if (now == columns.end()) {
      to.places.push_back(table::none);
    } else if (now->type_number != one.type) {
      return lost(*to.of, fmt::format("column {} had another type before", one.name));
    } else {
      to.places.push_back(static_cast<std::size_t>(now - columns.begin()));
    }
  }
  return std::nullopt;
}

// A row as it was then, in the columns of now.
std::optional<pg_error> follower::fit(const known& then, wal::tuple& row) const {
  if (row.size() != then.places.size()) {
    return lost(*then.of, "a row has another number of columns than the table");
  }
  wal::tuple now(then.of->columns.size(), wal::field{kind::absent, {}});
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (then.places[i] != table::none) now[then.places[i]] = row[i];
  }
  row = std::move(now);
  return std::nullopt;
}

template <class Row>
std::optional<pg_error> follower::follow(
    const Row& from, std::optional<pg_error> (follower::*with)(const Row&, actions&),
    actions& todo) {
  const auto found = relations_.find(from.relation);
  if (found == relations_.end() || found->second.places.empty()) return (this->*with)(from, todo);
  const known& then = found->second;
  if (!before_) {
    columns_changed_ = true;
    return lost(*then.of, "its columns were changed during the move");
  }
  Row fitting = from;
  if constexpr (!std::is_same_v<Row, wal::erase>) {
    if (auto error = fit(then, fitting.row)) return error;
  }
  if constexpr (!std::is_same_v<Row, wal::insert>) {
    if (!fitting.old.empty()) {
      if (auto error = fit(then, fitting.old)) return error;
    }
  }
  return (this->*with)(fitting, todo);
}

result<const table*> follower::find(std::uint32_t relation, const wal::tuple& row) const {
  const auto found = relations_.find(relation);
  if (found == relations_.end()) {
    return failure("08P01", "the server's log names a table that it has not described");
  }
  const table* of = found->second.of;
  if (of == nullptr) return of;
  if (row.size() != of->columns.size()) {
    return tl::unexpected(lost(*of, "a row has another number of columns than the table"));
  }
  for (const wal::field& one : row) {
    if (one.what == kind::binary) return tl::unexpected(lost(*of, "a value is in binary form"));
  }
  return of;
}

result<bool> follower::moves(const table& of, const wal::field& key) const {
  if (of.whole()) return true;
  if (key.what == kind::null && rows_.complete) {
    return tl::unexpected(lost(of, "a row has no sharding key, so that it has no destination"));
  }
  if (key.what == kind::null) return false;
  if (key.what == kind::unchanged || key.what == kind::absent) {
    return tl::unexpected(lost(of, "a sharding key is not in the server's log"));
  }
  const auto read = placement::normalise(of.by.type, placement::form::text, key.value,
                                         {placement::encoding::utf8, 0});
  if (!read) return tl::unexpected(lost(of, read.error().message));
  const auto& mapping = mappings_[static_cast<std::size_t>(&of - tables_.data())];
  if (!mapping) {
    return static_cast<bool>(moving_[placement::hash_of(of.by.hasher, *read) % rows_.buckets]);
  }
  const auto shard = mapping->find(*read);
  if (!shard && rows_.complete) {
    return tl::unexpected(lost(of, "no list and no range has a row's sharding key, so that it has "
                                   "no destination"));
  }
  return shard == rows_.shard;
}

std::optional<pg_error> follower::insert(const wal::insert& from, actions& todo) {
  const auto of = find(from.relation, from.row);
  if (!of) return of.error();
  if (*of == nullptr) return std::nullopt;
  const table& to = **of;
  const auto mine = moves(to, to.whole() ? wal::field{} : from.row[to.key]);
  if (!mine) return mine.error();
  if (!*mine) return std::nullopt;
  auto sql = insertion(to, from.row);
  if (!sql) return sql.error();
  auto row = touched(to, from.row);
  if (!row) return row.error();
  todo.push_back(one_row(to, std::move(*sql), {std::move(*row)}, false, &from.row));
  return std::nullopt;
}

std::optional<pg_error> follower::update(const wal::update& from, actions& todo) {
  const auto of = find(from.relation, from.row);
  if (!of) return of.error();
  if (*of == nullptr) return std::nullopt;
  const table& to = **of;
  const bool had = from.old_kind != 0;
  if (had && from.old.size() != from.row.size()) return lost(to, "an old row is incomplete");
  // Without an old row the identity is what it was, and stands in the new one.
  const wal::tuple& old = had ? from.old : from.row;
  const auto key_of = [&](const wal::tuple& row) {
    return to.whole() ? wal::field{} : row[to.key];
  };
  wal::field new_key = key_of(from.row);
  if (new_key.what == kind::unchanged) new_key = key_of(old);
  const auto was = moves(to, key_of(old));
  if (!was) return was.error();
  const auto is = moves(to, new_key);
  if (!is) return is.error();
  if (!*was && !*is) return std::nullopt;
  // What is known of the row as it is now: of an identity alone the rest reads as NULL.
  const auto row = from.old_kind == 'O' ? merged(from.row, old) : from.row;
  auto after = touched(to, merged(from.row, old));
  if (!after) return after.error();
  if (!*was) {
    auto sql = insertion(to, row);
    if (!sql) return sql.error();
    todo.push_back(one_row(to, std::move(*sql), {std::move(*after)}, false, &row));
    return std::nullopt;
  }
  // Without an old row and without a primary key nothing says which row it was.
  if (!had && to.primary.empty()) return lost(to, "a row came without what it was before");
  const auto where = named(to, old);
  if (!where) return where.error();
  auto before = touched(to, old);
  if (!before) return before.error();
  auto sql = *is ? update_sql(to, from.row, *where)
                 : fmt::format("DELETE FROM ONLY {} WHERE {}", in_sql(to), *where);
  if (sql.empty()) return lost(to, "none of its columns can be set");
  todo.push_back(one_row(to, std::move(sql), {std::move(*before), std::move(*after)}, true,
                         *is ? &row : nullptr));
  return std::nullopt;
}

std::optional<pg_error> follower::erase(const wal::erase& from, actions& todo) {
  const auto of = find(from.relation, from.old);
  if (!of) return of.error();
  if (*of == nullptr) return std::nullopt;
  const table& to = **of;
  const auto mine = moves(to, to.whole() ? wal::field{} : from.old[to.key]);
  if (!mine) return mine.error();
  if (!*mine) return std::nullopt;
  auto where = named(to, from.old);
  if (!where) return where.error();
  auto rows = touched(to, from.old);
  if (!rows) return rows.error();
  auto sql = fmt::format("DELETE FROM ONLY {} WHERE {}", in_sql(to), *where);
  todo.push_back(one_row(to, std::move(sql), {std::move(*rows)}, true, nullptr));
  return std::nullopt;
}

std::optional<pg_error> follower::truncate(const wal::truncate& from, actions& todo) const {
  for (const std::uint32_t id : from.relations) {
    const auto found = relations_.find(id);
    if (found == relations_.end()) {
      return pg_error{"08P01", "the server's log names a table that it has not described", {}, {}};
    }
    if (found->second.of == nullptr) continue;
    const table& to = *found->second.of;
    follow_action made;
    made.table = static_cast<std::size_t>(&to - tables_.data());
    made.sql = truncated(to, rows_);
    todo.push_back(std::move(made));
  }
  return std::nullopt;
}

}  // namespace pgsled::moving
