// The first packet of a client, without its length: the only message read before anything is known
// about its sender.

#include <cstdlib>

#include "common/wire/messages.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const byte_span packet(data, size);
  const auto message = wire::read_startup(packet);
  if (!message) return 0;
  std::string again;
  if (message->code == wire::cancel_request_code) {
    require(message->cancel_secret.size() >= wire::min_cancel_secret &&
            message->cancel_secret.size() <= wire::max_cancel_secret);
    wire::write_cancel(again, message->cancel_pid, message->cancel_secret);
  } else if (message->code >> 16 == 3) {
    wire::write_startup(again, message->code, message->parameters);
  } else {
    require(message->parameters.empty());
    return 0;
  }
  require(load_be<std::uint32_t>(again.data()) == again.size());
  require(std::string_view(again).substr(4) == as_text(packet));
  return 0;
}
