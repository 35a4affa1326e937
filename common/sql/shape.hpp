#pragma once
// Shape of a statement: its text with plain literals lifted out, so that statements that differ
// only in values share one plan. A single pass over the bytes, no allocation once the scratch
// strings have grown. Follows the lexical rules of PostgreSQL's scan.l. Pure, thread-compatible.
//
// What changes meaning stays in the shape: ordinals after ORDER BY / GROUP BY, type modifiers,
// typed literals (date '…'), E'' U&'' B'' X'' $$…$$ and joined strings, hint comments (/*+ … */).
// Lists of two or more literals after IN share one shape whatever their length (and are not
// lifted); a list of one is an equality and lifted like one. Integers that fit int8, other numbers
// and strings have different shapes. Literals are lifted from SELECT, INSERT, UPDATE, DELETE,
// MERGE, VALUES, WITH, TABLE, EXPLAIN and DECLARE only. The encoding of the text: see lexer.hpp.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgsled::sql {

struct literal {
  std::uint32_t offset = 0;  // of its first byte in the statement (the quote, for strings)
  std::uint32_t length = 0;
  bool quoted = false;       // '…' ; else an integer or decimal number
};

struct shape {
  std::string text;               // normalised: the cache key
  std::vector<literal> literals;  // in order of appearance
  bool complete = false;          // false: unterminated quote or comment; do not use as a key
  bool backslashes = false;       // standard_strings off and a plain '…' with a backslash: the
                                  // parser would read it differently, so it cannot be planned
};

// `standard_strings` is standard_conforming_strings of the session.
void find_shape(std::string_view sql, bool standard_strings, shape& into);

// The value of a quoted literal with doubled quotes undone, or of a number as written.
std::string literal_value(std::string_view sql, const literal&);

}  // namespace pgsled::sql
