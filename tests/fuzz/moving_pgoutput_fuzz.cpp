// What a walsender sends: frames, and the messages in them.

#include "common/moving/pgoutput.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const pgsled::byte_span bytes(data, size);
  (void)pgsled::moving::wal::decode(bytes);
  const auto frame = pgsled::moving::decode_frame(bytes);
  if (frame && frame->data) (void)pgsled::moving::wal::decode(frame->payload);
  return 0;
}
