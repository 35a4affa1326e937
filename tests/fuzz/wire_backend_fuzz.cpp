// A stream of messages as a server may send them. Readers never look outside of a body, and what
// they accept says the same when it is written again.

#include <cstdlib>
#include <vector>

#include "common/wire/messages.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

// `body` of the one message in `bytes`.
byte_span body_of(const std::string& bytes) {
  wire::frame message;
  require(wire::peek(as_bytes(bytes), message) == wire::frame_state::complete);
  require(message.total() == bytes.size());
  return as_bytes(bytes).subspan(wire::header_size);
}

void check_error(byte_span body) {
  const auto error = wire::read_error(body);
  if (!error) return;
  std::string bytes;
  wire::write_error(bytes, error->severity,
                    pg_error{std::string(error->sqlstate), std::string(error->message),
                             std::string(error->hint), std::string(error->detail)});
  const auto again = wire::read_error(body_of(bytes));
  require(again && again->severity == error->severity && again->sqlstate == error->sqlstate &&
          again->message == error->message && again->hint == error->hint &&
          again->detail == error->detail);
}

void check_parameter(byte_span body) {
  const auto pair = wire::read_parameter_status(body);
  if (!pair) return;
  std::string bytes;
  wire::write_parameter_status(bytes, pair->first, pair->second);
  require(as_text(body_of(bytes)) == as_text(body));
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
    switch (message.type) {
      case wire::backend::error_response:
      case wire::backend::notice_response: check_error(byte_span(body)); break;
      case wire::backend::parameter_status: check_parameter(byte_span(body)); break;
      default: break;
    }
    rest = rest.subspan(message.total());
  }
  return 0;
}
