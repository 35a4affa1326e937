#include "services/frontend/shards/same_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/placement/hash.hpp"
#include "common/session/settings.hpp"
#include "common/sql/lexer.hpp"
#include "common/wire/messages.hpp"

namespace pgsled::frontend {

namespace be = wire::backend;
using session::owed;
using namespace sql::literals;

namespace {

constexpr std::size_t digest_size = 32;   // md5 in hexadecimal digits

std::string digest_of(const std::string& reference) {
  return "pg_catalog.md5(pg_catalog.concat(" + reference +
         ".tableoid::pg_catalog.regclass, ' ', (" + reference + ".*)::pg_catalog.text))";
}

// The columns of the table, as a row of it has them.
std::string names_in_order(const std::string& table) {
  return "(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ',' ORDER BY attnum) FROM "
         "pg_catalog.pg_attribute WHERE attrelid = " +
         session::quote_literal(table) +
         "::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped)";
}

// Where the statement ends: before semicolons, blanks and comments.
std::size_t end_of(const std::string& sql, bool standard_strings) {
  sql::lexer lex{sql, standard_strings};
  std::size_t end = 0;
  for (auto t = lex.next(); t.kind != sql::token_kind::end; t = lex.next()) {
    if (!t.is_symbol(';')) end = t.end;
  }
  return end;
}

// Where FROM of the statement's own SELECT stands: outside of all parentheses, and not the one of
// IS DISTINCT FROM.
struct list_end {
  std::size_t at = 0;
  bool empty_list = false;
};
list_end before_from(const std::string& sql, bool standard_strings) {
  sql::lexer lex{sql, standard_strings};
  int depth = 0;
  bool distinct = false, selecting = false;
  for (auto t = lex.next(); t.kind != sql::token_kind::end; t = lex.next()) {
    if (t.is_symbol('(')) ++depth;
    if (t.is_symbol(')')) --depth;
    if (depth == 0 && t.is("from"_w) && !distinct) return {t.begin, selecting};
    distinct = t.is("distinct"_w);
    selecting = depth == 0 && t.is("select"_w);
  }
  return {sql.size(), true};
}

// One more field, or none, of a DataRow or a list of them; false when the message is malformed.
bool next_field(byte_span& rest, std::string_view& value) {
  if (rest.size() < 4) return false;
  const auto length = load_be<std::int32_t>(rest.data());
  rest = rest.subspan(4);
  value = {};
  if (length < 0) return true;
  if (static_cast<std::size_t>(length) > rest.size()) return false;
  value = as_text(rest.first(static_cast<std::size_t>(length)));
  rest = rest.subspan(static_cast<std::size_t>(length));
  return true;
}

bool read_half(std::string_view digits, std::uint64_t& into) {
  const auto* const last = digits.data() + digits.size();
  const auto [end, failed] = std::from_chars(digits.data(), last, into, 16);
  return failed == std::errc() && end == last;
}

// Formats of more columns than the client knows of; theirs are text.
std::string with_formats(const std::string& values, std::size_t more) {
  wire::reader from(as_bytes(values));
  const auto formats = static_cast<std::uint16_t>(from.i16());
  from.bytes(std::size_t{2} * formats);
  const auto parameters = static_cast<std::uint16_t>(from.i16());
  for (std::uint16_t i = 0; i < parameters && from.ok(); ++i) {
    const auto length = from.i32();
    if (length > 0) from.bytes(static_cast<std::size_t>(length));
  }
  const auto at = values.size() - from.left();
  const auto results = static_cast<std::uint16_t>(from.i16());
  // None and one are for all columns; digits are the same in both formats.
  if (!from.ok() || results < 2) return values;
  std::string made = values + std::string(2 * more, '\0');
  store_be(made.data() + at, static_cast<std::uint16_t>(results + more));
  return made;
}

}  // namespace

std::string same_rows::with_digest(const statement& of, bool standard_strings, std::size_t* at) {
  const auto digest = digest_of(of.rows.reference);
  if (of.rows.locks) {
    const auto from = before_from(of.sql, standard_strings);
    if (at != nullptr) *at = from.at;
    return of.sql.substr(0, from.at) + (from.empty_list ? "\n" : "\n, ") + digest + "\n" +
           of.sql.substr(from.at);
  }
  const auto end = end_of(of.sql, standard_strings);
  if (at != nullptr) *at = end;
  return of.sql.substr(0, end) +
         (of.rows.returning ? "\n, " : "\nRETURNING ") + digest +
         (of.rows.repeatable ? ", (" + of.rows.reference + ".*)::pg_catalog.text" : "");
}

same_rows::same_rows(bool simple, bool standard_strings, std::vector<statement> run,
                     std::vector<statement> described)
    : simple_(simple) {
  const auto take = [&](std::vector<statement>& from, std::vector<task>& to) {
    for (auto& one : from) {
      to.emplace_back();
      std::size_t at = 0;
      to.back().sql = with_digest(one, standard_strings, &at);
      if (one.rows.locks) {
        to.back().put_at = static_cast<std::size_t>(std::count_if(
            one.sql.begin(), one.sql.begin() + static_cast<std::ptrdiff_t>(at),
            [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
        to.back().put = to.back().sql.size() - one.sql.size();
      }
      to.back().statement = std::move(one);
    }
  };
  take(run, run_);
  take(described, described_);
}

conversation::speech same_rows::say(std::uint32_t shard) {
  speech to;
  turns_.clear();
  turn_ = 0;
  if (first_) {
    first_shard_ = shard;
    for (auto& one : described_) {
      wire::write_parse(to.bytes, "", one.sql, as_bytes(one.statement.types));
      wire::write_describe(to.bytes, 'S', "");
      wire::write_sync(to.bytes);
      to.owed.insert(to.owed.end(), {owed::parse, owed::describe_statement, owed::sync});
      turns_.push_back({part::describing, &one});
    }
  }
  for (auto& one : run_) {
    one.now = {};
    if (!first_ && one.has_again()) {
      wire::write_query(to.bytes, one.again);
      to.owed.push_back(owed::query);
    } else {
      add_run(to, one);
    }
    turns_.push_back({part::running, &one});
    if (first_ && one.statement.rows.repeatable) {
      ask_columns(to, one);
      turns_.push_back({part::asking, &one});
    }
  }
  return to;
}

void same_rows::add_run(speech& to, task& one) const {
  if (simple_) {
    wire::write_query(to.bytes, one.sql);
    to.owed.push_back(owed::query);
    return;
  }
  wire::write_parse(to.bytes, "", one.sql, as_bytes(one.statement.types));
  wire::writer(to.bytes, wire::frontend::bind)
      .text("")
      .text("")
      .raw(with_formats(one.statement.values, own_fields(one)));
  wire::write_describe(to.bytes, 'P', "");
  wire::write_execute(to.bytes, "");
  wire::write_close(to.bytes, 'P', "");   // the client must not find it
  wire::write_sync(to.bytes);
  to.owed.insert(to.owed.end(), {owed::parse, owed::bind, owed::describe_portal, owed::execute,
                                 owed::close, owed::sync});
}

// The table's whole name, the columns that can be given values, and whether text carries all values
// as they are.
void same_rows::ask_columns(speech& to, const task& one) const {
  wire::write_query(
      to.bytes,
      "SELECT pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', "
      "pg_catalog.quote_ident(c.relname)), "
      "pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ',' ORDER BY a.attnum), "
      "pg_catalog.string_agg(pg_catalog.concat('(r).', pg_catalog.quote_ident(a.attname)), "
      "',' ORDER BY a.attnum), "
      "pg_catalog.current_setting('extra_float_digits')::int > 0 AND "
      "pg_catalog.current_setting('IntervalStyle') = 'postgres' AND "
      "pg_catalog.current_setting('DateStyle') LIKE 'ISO%' AND "
      "pg_catalog.current_setting('client_encoding') IN ('UTF8', "
      "pg_catalog.current_setting('server_encoding')), " +
          names_in_order(one.statement.rows.table) +
          " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
          "JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid WHERE c.oid = " +
          session::quote_literal(one.statement.rows.table) +
          "::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' "
          "GROUP BY 1");
  to.owed.push_back(owed::query);
}

void same_rows::columns_known(task& one, byte_span body) {
  std::string_view name, columns, fields, faithful, order;
  auto rest = body.subspan(std::min<std::size_t>(2, body.size()));
  if (!next_field(rest, name) || !next_field(rest, columns) || !next_field(rest, fields) ||
      !next_field(rest, faithful) || !next_field(rest, order)) {
    malformed_ = true;
    return;
  }
  if (faithful != "t" || one.made.empty()) return;
  one.again.append("INSERT INTO ").append(name).append(" AS ");
  one.again.append(one.statement.rows.reference).append(" (").append(columns);
  one.again.append(") OVERRIDING SYSTEM VALUE SELECT ").append(fields).append(" FROM (VALUES ");
  for (std::size_t i = 0; i < one.made.size(); ++i) {
    if (i > 0) one.again.push_back(',');
    one.again.append("(").append(session::quote_literal(one.made[i])).append("::").append(name);
    one.again.append(")");
  }
  // A row as text is read in the order of the columns, which its digest does not tell.
  one.again.append(") AS v(r) WHERE ").append(names_in_order(one.statement.rows.table));
  one.again.append(" = ").append(session::quote_literal(order));
  one.again.append(" RETURNING ").append(digest_of(one.statement.rows.reference));
  one.made.clear();
}

void same_rows::heard(char type, byte_span body) {
  if (turn_ >= turns_.size()) return;
  auto& [what, of] = turns_[turn_];
  switch (type) {
    case be::ready_for_query: ++turn_; return;
    case be::error_response:
      if (error_.empty()) {
        const bool theirs = what != part::asking && (first_ || !of->has_again());
        shown_ = theirs ? of->statement.sql.size() + of->put : 0;
        put_at_ = of->put_at;
        put_ = of->put;
        error_ = as_text(body);
      }
      return;
    case be::parameter_description:
      if (what == part::describing) {
        wire::writer(of->answer.parameters, be::parameter_description).raw(as_text(body));
      }
      return;
    case be::row_description:
      if (!first_ || what == part::asking) return;
      if (of->statement.rows.returning) describe(of->answer.columns, *of, body);
      return;
    case be::data_row:
      if (what == part::running) return row(*of, body);
      if (what == part::asking) columns_known(*of, body);
      return;
    case be::command_complete:
      if (what != part::running) return;
      if (const auto tag = as_text(body.first(body.empty() ? 0 : body.size() - 1)); first_) {
        of->answer.tag = tag;
      } else if (of->answer.tag != tag) {
        of->now.other_tag = true;
      }
      return;
    default: return;
  }
}

// Without the columns that the client has not asked for.
void same_rows::describe(std::string& to, const task& one, byte_span body) const {
  wire::reader from(body);
  const auto count = static_cast<std::uint16_t>(from.i16());
  if (!from.ok() || count < own_fields(one)) return;
  const auto begin = from.left();
  const auto shown = count - own_fields(one);
  for (std::size_t i = 0; i < shown; ++i) {
    from.text();
    from.bytes(18);
  }
  if (!from.ok()) return;
  to.clear();
  wire::writer(to, be::row_description)
      .i16(static_cast<std::int16_t>(shown))
      .raw(as_text(body.subspan(2, begin - from.left())));
}

void same_rows::row(task& one, byte_span body) {
  // A row said again has the digest alone.
  const bool again = !first_ && one.has_again();
  const std::size_t ours = again ? 1 : own_fields(one);
  std::size_t count = body.size() < 2 ? 0 : load_be<std::uint16_t>(body.data());
  if (count < ours) {
    malformed_ = true;
    return;
  }
  auto rest = body.subspan(2);
  std::string_view field;
  for (std::size_t i = 0; i < count - ours; ++i) malformed_ |= !next_field(rest, field);
  const auto shown = body.subspan(2, body.size() - 2 - rest.size());
  std::string_view digest, made;
  malformed_ |= !next_field(rest, digest);
  if (ours == 2) malformed_ |= !next_field(rest, made);
  std::uint64_t high = 0, low = 0;
  malformed_ |= digest.size() != digest_size || !read_half(digest.substr(0, 16), high) ||
                !read_half(digest.substr(16), low);
  if (malformed_) return;
  ++one.now.count;
  one.now.digest[0] += high;
  one.now.digest[1] += low;
  one.now.client += placement::hash_text(as_text(shown));
  if (!first_) return;
  held_ += shown.size() + made.size();
  if (held_ > max_held) return;
  const auto limit = one.statement.limit;
  if (one.statement.rows.returning && (limit == 0 || one.now.count <= limit)) {
    wire::writer(one.answer.rows, be::data_row)
        .i16(static_cast<std::int16_t>(count - ours))
        .raw(as_text(shown));
  }
  if (ours == 2) one.made.emplace_back(made);
}

std::string same_rows::error_for(const pg_error& why) const {
  const auto said = wire::read_error(as_bytes(error_));
  // A deadlock over shards is told by another error than the server's.
  if (!said || said->sqlstate != why.sqlstate) return {};
  if (said->sqlstate == "42703" && said->message.find("tableoid") != said->message.npos) {
    std::string made;
    wire::write_error(made, "ERROR",
                      {"0A000", "a view cannot be written to on every shard, as what is stored is "
                                "not seen through it", "Write to the table itself.", {}});
    return made.substr(wire::header_size);
  }
  if (said->sqlstate == "42803" && said->message.find("tableoid") != said->message.npos) {
    std::string made;
    wire::write_error(made, "ERROR",
                      {"0A000", "FOR UPDATE or FOR SHARE is not allowed with aggregate functions or "
                                "GROUP BY", {}, {}});
    return made.substr(wire::header_size);
  }
  std::string told;
  std::string_view rest = error_;
  while (!rest.empty() && rest.front() != '\0') {
    const auto end = std::min(rest.find('\0', 1), rest.size());
    const auto field = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    // A position in what the client has not sent is none.
    std::size_t position = 0;
    if (field.front() == 'P') {
      std::from_chars(field.data() + 1, field.data() + field.size(), position);
      if (position > shown_ || (position > put_at_ && position <= put_at_ + put_)) continue;
      if (put_ > 0 && position > put_at_) {
        told.append("P").append(std::to_string(position - put_)).push_back('\0');
        continue;
      }
    }
    told.append(field).push_back('\0');
  }
  const bool writes = std::none_of(run_.begin(), run_.end(), [](const task& one) {
    return one.statement.rows.locks;
  });
  if (said->sqlstate == "42501" && said->hint.empty() && writes) {
    told += "HTo write to a table on every shard the rows are compared, which needs the right to "
            "SELECT them.";
    told.push_back('\0');
  }
  told.push_back('\0');
  return told;
}

pg_error same_rows::differs(std::uint32_t shard, const task& one) const {
  if (one.statement.rows.locks) {
    return {"40001",
            fmt::format("could not lock the same rows of table {} on every shard: shard {} differs "
                        "from shard {}", one.statement.rows.table, shard, first_shard_),
            "Somebody may have written to it meanwhile: repeat the transaction. If that does not "
            "help, name the rows by their key, without LIMIT, now() and the like, and compare the "
            "table on the shards.", {}};
  }
  return {"0A000",
          "the statement does not write the same rows to table " + one.statement.rows.table +
              " on every shard: shard " + std::to_string(shard) + " differs from shard " +
              std::to_string(first_shard_) + "; nothing has been changed",
          "Give the values with the statement instead of now(), random(), sequences or defaults "
          "of columns, and name the rows by their key. Do the rows of the table, or its columns, "
          "differ already? Compare it on the shards.",
          {}};
}

std::optional<pg_error> same_rows::answered(std::uint32_t shard) {
  const bool was_first = std::exchange(first_, false);
  if (malformed_ || turn_ != turns_.size()) {
    return pg_error{"08P01", "shard " + std::to_string(shard) +
                                 " has not said what it has written in a way that can be read",
                    {}, {}};
  }
  if (held_ > max_held) {
    return pg_error{"54000",
                    fmt::format("a statement that writes to every shard has more than {} bytes of "
                                "rows", max_held),
                    "Write fewer rows with a statement, or use COPY.", {}};
  }
  for (auto& one : run_) {
    if (was_first) {
      const auto limit = one.statement.limit;
      if (one.statement.rows.locks && limit > 0 && one.now.count > limit) {
        return pg_error{"0A000", "rows that are locked on every shard cannot be fetched in pieces",
                        "Execute the statement without a limit of rows (fetch size).", {}};
      }
      one.first = one.now;
      one.answer.suspended = one.statement.rows.returning && limit > 0 && one.now.count >= limit;
      continue;
    }
    if (one.has_again()) one.now.client = one.first.client;   // not asked for again
    if (one.now != one.first) return differs(shard, one);
  }
  return std::nullopt;
}

}  // namespace pgsled::frontend
