#pragma once
// The messages this suite itself reads or writes, as structs of views and functions that append
// to a string. What only passes through has no struct. Pure; parsers never throw, never allocate
// unless they say so, and refuse bodies with trailing bytes. Views point into the body given.
// Readers are in read_messages.cpp, writers in messages.cpp.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.hpp"
#include "common/wire/frame.hpp"

namespace pgsled::wire {

struct parse_message {
  std::string_view name, sql;
  byte_span parameter_types;  // 4 bytes each, network order
};
struct bind_message {         // everything up to the parameter values, then the values
  std::string_view portal, statement;
  byte_span formats;          // 2 bytes each
  std::uint16_t parameters = 0;
  byte_span rest;             // parameter values and result formats
};
struct described {            // Describe and Close
  char what = 0;              // 'S' or 'P'
  std::string_view name;
};
struct execute_message {
  std::string_view portal;
  std::int32_t max_rows = 0;
};
std::optional<parse_message> read_parse(byte_span body);
// Checks every length, and that there are no, one, or as many formats as parameters. The values of
// format codes are the server's to judge (22023, which is no breach of protocol).
std::optional<bind_message> read_bind(byte_span body);
std::optional<described> read_described(byte_span body);
std::optional<execute_message> read_execute(byte_span body);
std::optional<std::string_view> read_query(byte_span body);

struct parameter {
  bool present = false;       // false: NULL or no such number
  bool binary = false;
  byte_span value;
};
// `number` from 0. Walks the values before it, so its cost grows with the number.
parameter bind_parameter(const bind_message&, std::uint16_t number);

struct server_error {         // of an ErrorResponse or NoticeResponse; a field not sent is empty
  std::string_view severity, sqlstate, message, detail, hint;
};
std::optional<server_error> read_error(byte_span body);
std::optional<std::pair<std::string_view, std::string_view>> read_parameter_status(byte_span body);

// The first packet of a client, without its length. At most max_startup_length bytes are taken. Of
// a major version other than 3 only the code is read, so that the caller can name what it refuses.
struct startup {
  std::uint32_t code = 0;     // protocol version, or one of the request codes
  std::vector<std::pair<std::string, std::string>> parameters;
  std::uint32_t cancel_pid = 0;
  std::string cancel_secret;  // 4 to 256 bytes
};
std::optional<startup> read_startup(byte_span packet);  // allocates

void write_query(std::string& to, std::string_view sql);
void write_parse(std::string& to, std::string_view name, std::string_view sql, byte_span types);
void write_close(std::string& to, char what, std::string_view name);
// Without parameters, results as text.
void write_bind(std::string& to, std::string_view portal, std::string_view statement);
void write_execute(std::string& to, std::string_view portal);   // all rows
void write_describe(std::string& to, char what, std::string_view name);
void write_sync(std::string& to);
void write_terminate(std::string& to);
void write_startup(std::string& to, std::uint32_t version,
                   const std::vector<std::pair<std::string, std::string>>& parameters);
void write_cancel(std::string& to, std::uint32_t pid, std::string_view secret);

void write_error(std::string& to, std::string_view severity, const pg_error&);   // ERROR, FATAL
void write_notice(std::string& to, std::string_view severity, const pg_error&);
void write_ready(std::string& to, char status);
void write_parameter_status(std::string& to, std::string_view name, std::string_view value);
void write_backend_key(std::string& to, std::uint32_t pid, std::string_view secret);
void write_command_complete(std::string& to, std::string_view tag);
void write_empty(std::string& to, char type);   // messages without a body: 1 2 3 n I s
void write_authentication(std::string& to, std::int32_t code, std::string_view data = {});
void write_negotiate(std::string& to, std::uint32_t newest,
                     const std::vector<std::string>& unknown);
struct column { std::string name; std::uint32_t type = 25; };
void write_row_description(std::string& to, const std::vector<column>&);
void write_data_row(std::string& to, const std::vector<std::optional<std::string>>& values);

}  // namespace pgsled::wire
