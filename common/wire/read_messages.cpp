#include "common/wire/messages.hpp"

namespace pgsled::wire {

namespace {

// A count on the wire is declared Int16 and read as unsigned, as PostgreSQL does: up to 65535.
std::uint16_t count_of(reader& from) { return static_cast<std::uint16_t>(from.i16()); }

// Steps over one value: Int32 length (-1 is NULL) and as many bytes. False ends the walk.
bool next_value(reader& from, bool& present, byte_span& value) {
  const auto length = from.i32();
  present = from.ok() && length >= 0;
  value = {};
  if (!from.ok() || length < -1) return false;
  if (present) value = from.bytes(static_cast<std::size_t>(length));
  return from.ok();
}

}  // namespace

std::optional<parse_message> read_parse(byte_span body) {
  reader from(body);
  parse_message message;
  message.name = from.text();
  message.sql = from.text();
  message.parameter_types = from.bytes(std::size_t{4} * count_of(from));
  if (!from.finished()) return std::nullopt;
  return message;
}

std::optional<bind_message> read_bind(byte_span body) {
  reader from(body);
  bind_message message;
  message.portal = from.text();
  message.statement = from.text();
  const auto formats = count_of(from);
  message.formats = from.bytes(std::size_t{2} * formats);
  message.parameters = count_of(from);
  if (!from.ok() || (formats > 1 && formats != message.parameters)) return std::nullopt;

  message.rest = body.last(from.left());
  for (std::uint16_t i = 0; i < message.parameters; ++i) {
    bool present = false;
    byte_span value;
    if (!next_value(from, present, value)) return std::nullopt;
  }
  // How many columns there will be only the server knows; here the codes must fill the body.
  from.bytes(std::size_t{2} * count_of(from));
  if (!from.finished()) return std::nullopt;
  return message;
}

std::optional<described> read_described(byte_span body) {
  reader from(body);
  described message;
  message.what = static_cast<char>(from.u8());
  message.name = from.text();
  if (!from.finished() || (message.what != 'S' && message.what != 'P')) return std::nullopt;
  return message;
}

std::optional<execute_message> read_execute(byte_span body) {
  reader from(body);
  execute_message message;
  message.portal = from.text();
  message.max_rows = from.i32();
  if (!from.finished()) return std::nullopt;
  return message;
}

std::optional<std::string_view> read_query(byte_span body) {
  reader from(body);
  const auto sql = from.text();
  if (!from.finished()) return std::nullopt;
  return sql;
}

parameter bind_parameter(const bind_message& message, std::uint16_t number) {
  parameter found;
  if (number >= message.parameters) return found;
  const auto formats = message.formats.size() / 2;
  if (formats != 0) {
    const std::size_t at = formats == 1 ? 0 : number;
    if (at >= formats) return found;
    found.binary = load_be<std::int16_t>(message.formats.data() + 2 * at) == 1;
  }
  reader from(message.rest);
  for (std::uint16_t i = 0; i <= number; ++i)
    if (!next_value(from, found.present, found.value)) return {};
  return found;
}

std::optional<server_error> read_error(byte_span body) {
  reader from(body);
  server_error error;
  std::string_view localised;
  for (;;) {
    const char field = static_cast<char>(from.u8());
    if (field == '\0') break;  // the terminator, or the end of what is there
    const auto value = from.text();
    switch (field) {
      case 'S': localised = value; break;
      case 'V': error.severity = value; break;
      case 'C': error.sqlstate = value; break;
      case 'M': error.message = value; break;
      case 'D': error.detail = value; break;
      case 'H': error.hint = value; break;
      default: break;  // the manual asks to ignore what is not known
    }
  }
  if (!from.finished()) return std::nullopt;
  if (error.severity.empty()) error.severity = localised;  // before 9.6 there was no 'V'
  return error;
}

std::optional<std::pair<std::string_view, std::string_view>> read_parameter_status(
    byte_span body) {
  reader from(body);
  const auto name = from.text();
  const auto value = from.text();
  if (!from.finished()) return std::nullopt;
  return std::pair{name, value};
}

std::optional<startup> read_startup(byte_span packet) {
  if (packet.size() > max_startup_length) return std::nullopt;
  reader from(packet);
  startup message;
  message.code = from.u32();
  if (!from.ok()) return std::nullopt;
  switch (message.code) {
    case ssl_request_code:
    case gssenc_request_code:
      if (!from.finished()) return std::nullopt;
      return message;
    case cancel_request_code: {
      message.cancel_pid = from.u32();
      if (!from.ok() || from.left() < min_cancel_secret || from.left() > max_cancel_secret)
        return std::nullopt;
      message.cancel_secret = as_text(from.rest());
      return message;
    }
    default: break;
  }
  // Another major version has another layout. The caller refuses it and needs the number to say so.
  if (message.code >> 16 != protocol_3_0 >> 16) return message;
  for (;;) {
    const auto name = from.text();
    if (!from.ok()) return std::nullopt;
    if (name.empty()) break;
    const auto value = from.text();
    if (!from.ok()) return std::nullopt;
    message.parameters.emplace_back(name, value);
  }
  if (!from.finished()) return std::nullopt;
  return message;
}

}  // namespace pgsled::wire
