#pragma once
// The plan of a statement shape and the request for one, as they travel between frontend and
// router (binary, docs/formats/envelope.md). Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "common/copy/options.hpp"
#include "common/placement/rule.hpp"

namespace pgsled::plan {

// Where a statement goes. Never change or reuse a value.
enum class destination : std::uint8_t {
  one_shard = 1,   // the shard of `key`
  any_shard = 2,   // needs no particular shard: the transaction's, else the client's own
  all_shards = 3,  // DDL and the like: one transaction on each, committed after all succeeded
  refused = 4,     // `error` says why
  copy_in = 5,     // COPY … FROM STDIN, as `copy` says
  copy_out = 6,    // COPY of a sharded table TO STDOUT: all shards, one after the other
};
enum class key_source : std::uint8_t { none = 0, parameter = 1, literal = 2, constant = 3 };
enum class access : std::uint8_t { read = 0, write = 1 };

struct key {
  key_source source = key_source::none;
  std::uint16_t number = 0;     // parameter: 0-based $n; literal: 0-based lifted literal
  bool negated = false;         // literal: a unary minus stands before it
  std::int64_t constant = 0;    // constant of type bigint
  // varchar: characters of the column the value is stored into, which takes trailing spaces off
  // beyond them; 0: none, or the value is only compared.
  std::uint32_t limit = 0;
  std::string text = {};        // constant of another type
};

struct copy_plan {
  std::string table;                 // as SQL, as written
  std::string name;                  // as PostgreSQL's errors show it: without the schema
  std::string key;                   // its sharding column; empty: it is on every shard
  std::vector<std::string> columns;  // as listed; empty: all but generated ones, in their order
  copy::options options;
};

// all_shards: INSERT, UPDATE, DELETE or locks of rows that are on every shard and must be the same.
// What each shard has written is compared (services/frontend/same_rows).
struct row_write {
  std::string table;        // as SQL; empty: the statement writes no such rows (DDL)
  std::string reference;    // what its rows are called in the statement's RETURNING, as SQL
  bool returning = false;   // the client asks for rows
  // The rows that it has made on one shard are all there is to it (INSERT without ON CONFLICT): the
  // others can be given these, so that sequences and clocks count once.
  bool repeatable = false;
  bool locks = false;       // SELECT … FOR UPDATE of these rows; `reference`: in the select list
};

struct plan {
  pgsled::plan::destination destination = pgsled::plan::destination::any_shard;
  pgsled::plan::access access = pgsled::plan::access::read;
  pgsled::plan::key key;
  placement::rule rule;            // one_shard, copy_in: from the value of the key to the shard
  copy_plan copy;                  // copy_in, copy_out
  // one_shard: other places that must hold the same value as `key`; the one who runs the plan
  // compares the normalised values and refuses the statement with `error` when they differ.
  std::vector<pgsled::plan::key> also_equal;
  bool changes_catalog = false;    // DDL: plans and prepared statements made before it may be stale
  // Names that may mean something else than the catalog says, until the transaction has ended; "*":
  // any.
  std::vector<std::string> unsettles = {};
  // all_shards, but cannot run inside BEGIN (CREATE INDEX CONCURRENTLY, VACUUM): on one shard after
  // the other, each for itself. Only what changes no answer where it has run on some shards alone.
  bool own_transaction = false;
  // all_shards: tables whose sequences become disjoint per shard.
  std::vector<std::string> spread_sequences_of;
  pgsled::plan::row_write rows;    // all_shards
  pg_error error;                  // refused; or what to say when `also_equal` is not equal
};

// A search_path that the client has computed, so that it is not known.
inline constexpr std::string_view unknown_path = "?";

struct request {
  std::string database, user;
  std::string search_path;         // as SQL text, or unknown_path; empty: the default of the user
  std::string sql;
  std::vector<std::uint32_t> parameter_types;   // OIDs as the client declared them; 0 unspecified
  std::vector<std::uint32_t> literal_offsets;   // byte offset in `sql` of each lifted literal
  std::string tree;                // libpg_query's protobuf; empty: the syntax is not known
  std::vector<std::string> unsettled = {};   // plan::unsettles of earlier ones of the transaction
};

struct answer {
  std::uint64_t epoch = 0;
  pgsled::plan::plan plan;
};

// The decoders check every length and reject trailing bytes; the error says what was wrong.
void encode(const request&, std::string& to);
void encode(const answer&, std::string& to);
tl::expected<request, std::string> decode_request(byte_span);
tl::expected<answer, std::string> decode_answer(byte_span);

}  // namespace pgsled::plan
