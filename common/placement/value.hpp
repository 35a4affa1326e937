#pragma once
// The one normaliser: what a client sent for a sharding key → the value PostgreSQL would store and
// compare, per type. For literals, parameters in text and binary form, and fields of COPY alike.
// What cannot be normalised for certain is an error, and the statement is refused. Pure; numbers
// and uuids without allocation. NULL is the caller's: it has no value to normalise.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"

namespace pgsled::placement {

// Type of a sharding column as the configuration names it. Never change or reuse a value.
enum class key_type : std::uint8_t {
  bigint = 1,   // smallint, integer, bigint
  uuid = 2,
  varchar = 3,  // text, varchar; never char(n), whose trailing spaces do not count
};
std::optional<key_type> key_type_of(std::string_view name);  // as in data_type
std::string_view name_of(key_type);

enum class form : std::uint8_t { text, binary };

// How bytes above 127 of a text get from the client into the server.
enum class encoding : std::uint8_t {
  converted,    // or not known: they may change on the way, such a text is refused
  single_byte,  // unchanged, each a character
  utf8,         // unchanged
  multi_byte,   // unchanged, how many make a character is not known here
};
// By the names in ParameterStatus client_encoding and server_encoding.
encoding encoding_between(std::string_view client, std::string_view server);

struct text_rules {
  placement::encoding encoding = placement::encoding::converted;
  // Characters of the varchar(n) that the value is stored into, where PostgreSQL cuts trailing
  // spaces beyond them; 0: no limit, or only compared. A longer text is given back as it is: the
  // server refuses to store it, wherever it goes.
  std::uint32_t limit = 0;
};

struct value {
  key_type type = key_type::bigint;
  std::int64_t number = 0;                  // bigint
  std::array<std::uint8_t, 16> uuid{};      // uuid
  std::string_view text;                    // varchar: borrowed from what was normalised
  bool operator==(const value&) const = default;
};

// 22P02 as PostgreSQL would say, when the text is no value of the type; 22021 for a zero byte in a
// text; 0A000 when it may be one but which cannot be told.
result<value> normalise(key_type, form, std::string_view bytes, const text_rules& = {});

// As int8in reads it: surrounding white space, sign, decimal digits. Of PostgreSQL 16's forms hex,
// octal, binary and underscores are refused because older servers refuse them.
std::optional<std::int64_t> bigint_from_text(std::string_view text);
// Binary int2, int4 and int8 by length; anything else nullopt.
std::optional<std::int64_t> bigint_from_binary(byte_span bytes);
// As uuid_in reads it: 32 digits in either case, a hyphen allowed after every fourth one, braces
// allowed around it all; no white space.
std::optional<std::array<std::uint8_t, 16>> uuid_from_text(std::string_view text);

std::string uuid_to_text(const std::array<std::uint8_t, 16>&);   // as uuid_out

}  // namespace pgsled::placement
