#include "common/wire/frame.hpp"

#include <limits>

#include "common/base/result.hpp"

namespace pgsled::wire {

bool reader::take(std::size_t count, byte_span& into) {
  if (!ok_ || rest_.size() < count) {
    ok_ = false;
    rest_ = {};
    into = {};
    return false;
  }
  into = rest_.first(count);
  rest_ = rest_.subspan(count);
  return true;
}

std::uint8_t reader::u8() {
  byte_span field;
  return take(1, field) ? field[0] : std::uint8_t{0};
}

std::int16_t reader::i16() {
  byte_span field;
  return take(2, field) ? load_be<std::int16_t>(field.data()) : std::int16_t{0};
}

std::int32_t reader::i32() {
  byte_span field;
  return take(4, field) ? load_be<std::int32_t>(field.data()) : 0;
}

std::string_view reader::text() {
  const auto all = as_text(rest_);
  const auto end = all.find('\0');
  byte_span field;
  // Without a zero byte the field is longer than what is left, whatever is left.
  if (!take(end == std::string_view::npos ? std::numeric_limits<std::size_t>::max() : end + 1,
            field))
    return {};
  return all.substr(0, end);
}

byte_span reader::bytes(std::size_t count) {
  byte_span field;
  take(count, field);
  return field;
}

byte_span reader::rest() {
  byte_span field;
  take(rest_.size(), field);
  return field;
}

writer::writer(std::string& to, char type) : to_(to), length_at_(to.size() + 1) {
  const char header[header_size] = {type, 0, 0, 0, 0};
  to_.append(header, header_size);
}

writer& writer::u8(std::uint8_t value) {
  to_.push_back(static_cast<char>(value));
  return *this;
}

writer& writer::i16(std::int16_t value) {
  char bytes[sizeof value];
  store_be(bytes, value);
  to_.append(bytes, sizeof bytes);
  return *this;
}

writer& writer::i32(std::int32_t value) {
  char bytes[sizeof value];
  store_be(bytes, value);
  to_.append(bytes, sizeof bytes);
  return *this;
}

writer& writer::text(std::string_view value) {
  // A zero byte inside would let the value of one field pass for the next field.
  to_.append(value.substr(0, value.find('\0')));
  to_.push_back('\0');
  return *this;
}

writer& writer::raw(std::string_view value) {
  to_.append(value);
  return *this;
}

void writer::end() {
  if (!open_) return;
  open_ = false;
  const std::size_t length = to_.size() - length_at_;
  // What is above max_message_length the receiver refuses; what does not fit would break framing.
  PGSLED_ASSERT(length <= std::numeric_limits<std::uint32_t>::max());
  store_be(to_.data() + length_at_, static_cast<std::uint32_t>(length));
}

}  // namespace pgsled::wire
