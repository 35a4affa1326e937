#pragma once
// table: one table that takes part in a move, and the SQL about its rows. Pure.
//
// Which bucket a row is in is computed on the server by the functions that PARTITION BY HASH uses,
// combined as it combines them, so that it is what common/placement gives for the same key. SHA-1
// is no function of PostgreSQL's own: that of its extension pgcrypto is used. Where lists or ranges
// place the rows the server compares the key with them, and finds the shard at once.

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/placement/rule.hpp"
#include "common/placement/value.hpp"

namespace pgsled::moving {

struct table_column {
  std::string name;
  std::string type;                // as format_type() gives it
  std::uint32_t type_number = 0;   // its oid on this server
  std::int32_t modifier = -1;
  bool identity_always = false;    // GENERATED ALWAYS AS IDENTITY
  bool operator==(const table_column&) const = default;
};

// How rows are placed by a value of the key's type.
struct placing {
  placement::key_type type = placement::key_type::bigint;
  placement::hasher hasher = placement::hasher::postgres;
  std::string digest;                  // of pgcrypto, as SQL; for sha1, empty: it is not there
  std::optional<placement::mapping> mapping;   // not by hash
  bool operator==(const placing&) const = default;
};

struct selection {                     // of rows: those of a whole table, or of some buckets
  std::size_t buckets = 0;             // of the map
  std::vector<std::uint32_t> moving;
  // Every row of a sharded table has a destination: one without a key is a mistake. Else it stays.
  bool complete = false;
  std::uint32_t shard = 0;             // whose rows they are, where lists or ranges place them
  bool operator==(const selection&) const = default;
};

// Which rows of a table its source has, where several sources fill one destination.
struct table_home {
  std::size_t key = 0;                 // place of the column by which the sources place rows
  placing by;
  selection own;                       // this source's
  bool operator==(const table_home&) const = default;
};

struct table {
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

  std::string schema, name;
  std::vector<table_column> columns;   // without generated ones, in the table's order
  // Places of the primary key's columns in `columns`; none: a row is known by all of its columns,
  // and there may be several that are equal.
  std::vector<std::size_t> primary;
  std::size_t key = none;              // place of the sharding column; none: rows on every shard
  placing by;
  std::optional<table_home> home;      // none: all rows that are selected
  bool other_types = false;            // of the destination's columns: values go there as text

  bool operator==(const table&) const = default;
  bool whole() const { return key == none; }
  bool key_in_primary() const;
  // Whether its primary key says in the log which row it was, and whose.
  bool known_by_primary() const { return !primary.empty() && (whole() || key_in_primary()); }
  std::string label() const { return schema + "." + name; }   // for people
};

// Called as moving::quoted: with a std::string alone std::quoted would be meant, too.
std::string quoted(std::string_view identifier);
std::string in_sql(const table&);                  // "schema"."name"
std::string column_list(const table&);

// The bucket of `expression`, a value of the key's type; NULL of NULL. Not of a mapping.
std::string bucket_in_sql(const placing&, const std::string& expression, std::size_t buckets);
// Whether `expression`, a value of the key's type, is in one of these buckets, or on the shard; not
// true of NULL. Much cheaper than bucket_in_sql(): it is evaluated for every row that a source has.
std::string moves_in_sql(const placing&, const std::string& expression, const selection&);
std::string where_moving(const table&, const selection&);   // "true" for a whole table
// Which rows have no destination at all: without a key, or in no list and no range. None: there can
// be none.
std::optional<std::string> where_unplaced(const table&);

// What a TRUNCATE on the source does away with on the destination.
std::string truncated(const table&, const selection&);

// Whether all columns' types have a binary form that every server reads alike: of the built-in
// ones those that neither name an object by its number nor depend on a setting.
bool has_binary_form(const table&);
// The rows in blocks [from, to) of the table; without `to` all that follow.
struct block_range {
  std::uint64_t from = 0;
  std::optional<std::uint64_t> to;
};
std::string copy_out(const table&, const selection&, bool binary, const block_range&);
std::string copy_in(const table&, bool binary);
// One row: how many rows, and the sum of a hash of each. Of those that fulfil one of `among`, if
// there are any: conditions on the columns; of a sharded table without a primary key literals of
// the sharding key, which are all looked for in one pass, because it may have no index.
std::string checksum(const table&, const selection&, std::span<const std::string> among = {});

}  // namespace pgsled::moving
