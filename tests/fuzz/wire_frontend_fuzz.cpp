// A stream of messages as a client may send them. Readers never look outside of a body, and what
// they accept says the same when it is written again.

#include <cstdlib>
#include <vector>

#include "common/wire/messages.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

bool inside(byte_span part, byte_span whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void check_bind(byte_span body) {
  const auto message = wire::read_bind(body);
  if (!message) return;
  require(inside(message->rest, body) && inside(message->formats, body));
  const auto formats = message->formats.size() / 2;
  require(formats <= 1 || formats == message->parameters);
  // Each look-up walks from the front; a few are enough.
  for (std::uint32_t number = 0; number <= message->parameters && number < 16; ++number) {
    const auto found = wire::bind_parameter(*message, static_cast<std::uint16_t>(number));
    require(inside(found.value, message->rest) && (found.present || found.value.empty()));
    if (number == message->parameters) require(!found.present);
  }
  if (message->parameters != 0)
    wire::bind_parameter(*message, static_cast<std::uint16_t>(message->parameters - 1));
}

void check(char type, byte_span body) {
  std::string again;
  switch (type) {
    case wire::frontend::query:
      if (const auto sql = wire::read_query(body)) wire::write_query(again, *sql);
      break;
    case wire::frontend::parse:
      if (const auto message = wire::read_parse(body))
        wire::write_parse(again, message->name, message->sql, message->parameter_types);
      break;
    case wire::frontend::bind: check_bind(body); break;
    case wire::frontend::describe:
      if (const auto message = wire::read_described(body))
        wire::write_describe(again, message->what, message->name);
      break;
    case wire::frontend::close:
      if (const auto message = wire::read_described(body))
        wire::write_close(again, message->what, message->name);
      break;
    case wire::frontend::execute:
      if (const auto message = wire::read_execute(body))
        wire::writer(again, type).text(message->portal).i32(message->max_rows);
      break;
    default: break;
  }
  if (again.empty()) return;
  require(again[0] == type && std::string_view(again).substr(wire::header_size) == as_text(body));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  byte_span rest(data, size);
  wire::frame message;
  while (wire::peek(rest, message) == wire::frame_state::complete &&
         message.total() <= rest.size()) {
    // A copy of its own, so that the sanitizer sees a look beyond the end.
    const std::vector<std::uint8_t> body(rest.begin() + wire::header_size,
                                         rest.begin() + static_cast<long>(message.total()));
    check(message.type, byte_span(body));
    rest = rest.subspan(message.total());
  }
  return 0;
}
