#pragma once
// Framing of the PostgreSQL protocol, version 3: one byte of type, four of length (which counts
// itself), body. Names are those of the manual, chapter "Message Formats". Pure.

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/bytes.hpp"

namespace pgsled::wire {

// Message types a client sends.
namespace frontend {
inline constexpr char query = 'Q', parse = 'P', bind = 'B', describe = 'D', execute = 'E',
                      close = 'C', sync = 'S', flush = 'H', function_call = 'F', copy_data = 'd',
                      copy_done = 'c', copy_fail = 'f', terminate = 'X', password = 'p';
constexpr bool is_copy(char type) {
  return type == copy_data || type == copy_done || type == copy_fail;
}
}  // namespace frontend
// Message types a server sends.
namespace backend {
inline constexpr char authentication = 'R', parameter_status = 'S', backend_key_data = 'K',
                      ready_for_query = 'Z', error_response = 'E', notice_response = 'N',
                      notification_response = 'A', row_description = 'T', data_row = 'D',
                      command_complete = 'C', empty_query_response = 'I', parse_complete = '1',
                      bind_complete = '2', close_complete = '3', no_data = 'n',
                      parameter_description = 't', portal_suspended = 's', copy_in_response = 'G',
                      copy_out_response = 'H', copy_both_response = 'W', copy_data = 'd',
                      copy_done = 'c', function_call_response = 'V',
                      negotiate_protocol_version = 'v';
}

inline constexpr std::size_t header_size = 5;
inline constexpr std::uint32_t max_message_length = 0x3fffffff;  // PostgreSQL's own limit, 1 GB
inline constexpr std::uint32_t max_startup_length = 10'000;  // MAX_STARTUP_PACKET_LENGTH
inline constexpr std::uint32_t max_auth_length = 65'535;
// Of BackendKeyData and CancelRequest: 4 in protocol 3.0, up to 256 since 3.2.
inline constexpr std::size_t min_cancel_secret = 4, max_cancel_secret = 256;

inline constexpr std::uint32_t protocol_3_0 = 0x00030000, protocol_3_2 = 0x00030002;
inline constexpr std::uint32_t cancel_request_code = 80877102, ssl_request_code = 80877103,
                               gssenc_request_code = 80877104;

struct frame {
  char type = 0;
  std::uint32_t length = 0;  // of the body, without the four bytes of length
  std::size_t total() const { return header_size + length; }
};
enum class frame_state : std::uint8_t { complete, partial_header, bad_length };
// Reads the header only; `partial_header` when fewer than five bytes are there.
inline frame_state peek(byte_span from, frame& into) {
  if (from.size() < header_size) return frame_state::partial_header;
  const auto length = load_be<std::uint32_t>(from.data() + 1);
  if (length < 4 || length > max_message_length) return frame_state::bad_length;
  into.type = static_cast<char>(from[0]);
  into.length = length - 4;
  return frame_state::complete;
}

// Reads fields in order and keeps the first failure; after it every field is empty or zero.
class reader {
 public:
  explicit reader(byte_span body) : rest_(body) {}
  std::uint8_t u8();
  std::int16_t i16();
  std::int32_t i32();
  std::uint32_t u32() { return static_cast<std::uint32_t>(i32()); }
  std::string_view text();                  // up to and past a zero byte
  byte_span bytes(std::size_t count);
  byte_span rest();                         // everything left
  bool ok() const { return ok_; }
  bool finished() const { return ok_ && rest_.empty(); }  // and nothing trails
  std::size_t left() const { return rest_.size(); }

 private:
  bool take(std::size_t count, byte_span& into);
  byte_span rest_;
  bool ok_ = true;
};

// Calls each(type, body, whole) for the messages that are complete in `carry`, and takes them off.
// Each may not touch `carry`.
template <class Each>
void take_messages(std::string& carry, Each each) {
  std::size_t at = 0;
  frame next;
  while (peek(as_bytes(carry).subspan(at), next) == frame_state::complete &&
         carry.size() - at >= next.total()) {
    each(next.type, as_bytes(carry).subspan(at + header_size, next.length),
         std::string_view(carry).substr(at, next.total()));
    at += next.total();
  }
  carry.erase(0, at);
}

// Appends one message to a string: begin, fields, and the length is patched on end(). What is
// larger than a receiver takes (max_message_length) is written and left to the receiver to refuse.
class writer {
 public:
  writer(std::string& to, char type);
  writer(const writer&) = delete;
  writer& operator=(const writer&) = delete;
  ~writer() { end(); }
  writer& u8(std::uint8_t value);
  writer& i16(std::int16_t value);
  writer& i32(std::int32_t value);
  writer& text(std::string_view value);     // up to a zero byte within, and a zero byte
  writer& raw(std::string_view value);
  void end();

 private:
  std::string& to_;
  std::size_t length_at_;
  bool open_ = true;
};

}  // namespace pgsled::wire
