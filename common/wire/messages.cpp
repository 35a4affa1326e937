#include "common/wire/messages.hpp"

#include <limits>

namespace pgsled::wire {

namespace {

std::int32_t as_i32(std::uint32_t value) { return static_cast<std::int32_t>(value); }

std::int16_t as_count(std::size_t count) {
  PGSLED_ASSERT(count <= std::numeric_limits<std::uint16_t>::max());
  return static_cast<std::int16_t>(static_cast<std::uint16_t>(count));
}

void append_i32(std::string& to, std::uint32_t value) {
  char bytes[sizeof value];
  store_be(bytes, value);
  to.append(bytes, sizeof bytes);
}

// pg_type.typlen of the types our own result sets use; -1 is variable length.
std::int16_t type_length(std::uint32_t type) {
  switch (type) {
    case 16: return 1;                          // boolean
    case 21: return 2;                          // smallint
    case 23: case 26: case 700: return 4;       // integer, oid, real
    case 20: case 701: return 8;                // bigint, double precision
    case 1114: case 1184: return 8;             // timestamp, timestamptz
    default: return -1;
  }
}

void write_fields(std::string& to, char type, std::string_view severity, const pg_error& error) {
  writer out(to, type);
  out.u8('S').text(severity).u8('V').text(severity).u8('C').text(error.sqlstate);
  out.u8('M').text(error.message);
  if (!error.detail.empty()) out.u8('D').text(error.detail);
  if (!error.hint.empty()) out.u8('H').text(error.hint);
  out.u8(0);
}

}  // namespace

void write_query(std::string& to, std::string_view sql) { writer(to, frontend::query).text(sql); }

void write_parse(std::string& to, std::string_view name, std::string_view sql, byte_span types) {
  PGSLED_ASSERT(types.size() % 4 == 0);
  writer(to, frontend::parse).text(name).text(sql).i16(as_count(types.size() / 4)).raw(
      as_text(types));
}

void write_close(std::string& to, char what, std::string_view name) {
  writer(to, frontend::close).u8(static_cast<std::uint8_t>(what)).text(name);
}

void write_bind(std::string& to, std::string_view portal, std::string_view statement) {
  writer(to, frontend::bind).text(portal).text(statement).i16(0).i16(0).i16(0);
}

void write_execute(std::string& to, std::string_view portal) {
  writer(to, frontend::execute).text(portal).i32(0);
}

void write_describe(std::string& to, char what, std::string_view name) {
  writer(to, frontend::describe).u8(static_cast<std::uint8_t>(what)).text(name);
}

void write_sync(std::string& to) { writer(to, frontend::sync); }

void write_terminate(std::string& to) { writer(to, frontend::terminate); }

void write_startup(std::string& to, std::uint32_t version,
                   const std::vector<std::pair<std::string, std::string>>& parameters) {
  const auto length_at = to.size();
  append_i32(to, 0);
  append_i32(to, version);
  const auto text = [&to](std::string_view value) {
    to.append(value.substr(0, value.find('\0')));
    to.push_back('\0');
  };
  for (const auto& [name, value] : parameters) {
    if (name.empty() || name[0] == '\0') continue;  // an empty name ends the list
    text(name);
    text(value);
  }
  to.push_back('\0');
  store_be(to.data() + length_at, static_cast<std::uint32_t>(to.size() - length_at));
}

void write_cancel(std::string& to, std::uint32_t pid, std::string_view secret) {
  append_i32(to, static_cast<std::uint32_t>(12 + secret.size()));
  append_i32(to, cancel_request_code);
  append_i32(to, pid);
  to.append(secret);
}

void write_error(std::string& to, std::string_view severity, const pg_error& error) {
  write_fields(to, backend::error_response, severity, error);
}

void write_notice(std::string& to, std::string_view severity, const pg_error& error) {
  write_fields(to, backend::notice_response, severity, error);
}

void write_ready(std::string& to, char status) {
  writer(to, backend::ready_for_query).u8(static_cast<std::uint8_t>(status));
}

void write_parameter_status(std::string& to, std::string_view name, std::string_view value) {
  writer(to, backend::parameter_status).text(name).text(value);
}

void write_backend_key(std::string& to, std::uint32_t pid, std::string_view secret) {
  writer(to, backend::backend_key_data).i32(as_i32(pid)).raw(secret);
}

void write_command_complete(std::string& to, std::string_view tag) {
  writer(to, backend::command_complete).text(tag);
}

void write_empty(std::string& to, char type) { writer(to, type); }

void write_authentication(std::string& to, std::int32_t code, std::string_view data) {
  writer(to, backend::authentication).i32(code).raw(data);
}

void write_negotiate(std::string& to, std::uint32_t newest,
                     const std::vector<std::string>& unknown) {
  writer out(to, backend::negotiate_protocol_version);
  out.i32(as_i32(newest)).i32(static_cast<std::int32_t>(unknown.size()));
  for (const auto& option : unknown) out.text(option);
}

void write_row_description(std::string& to, const std::vector<column>& columns) {
  writer out(to, backend::row_description);
  out.i16(as_count(columns.size()));
  for (const auto& each : columns) {
    out.text(each.name).i32(0).i16(0);  // of no table
    out.i32(as_i32(each.type)).i16(type_length(each.type)).i32(-1).i16(0);  // no modifier, text
  }
}

void write_data_row(std::string& to, const std::vector<std::optional<std::string>>& values) {
  writer out(to, backend::data_row);
  out.i16(as_count(values.size()));
  for (const auto& value : values) {
    if (!value) {
      out.i32(-1);
      continue;
    }
    PGSLED_ASSERT(value->size() <= max_message_length);
    out.i32(static_cast<std::int32_t>(value->size())).raw(*value);
  }
}

}  // namespace pgsled::wire
