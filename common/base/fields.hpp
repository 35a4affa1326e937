#pragma once
// Messages between processes as a row of fields: integers little-endian, texts and lists with a
// 32-bit count before them. Pure; the reader checks every length before it allocates, never throws.

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "common/base/bytes.hpp"

namespace pgsled {

class field_writer {
 public:
  explicit field_writer(std::string& to) : to_(to) {}   // appends

  template <class Integer>
  void integer(Integer value) {
    char bytes[sizeof value];
    store_le(bytes, value);
    to_.append(bytes, sizeof value);
  }
  void flag(bool value) { integer(static_cast<std::uint8_t>(value)); }
  void text(const std::string& value) {
    integer(static_cast<std::uint32_t>(value.size()));
    to_ += value;
  }
  template <class List, class Each>
  void list(const List& values, Each each) {
    integer(static_cast<std::uint32_t>(values.size()));
    for (const auto& value : values) each(value);
  }
  void texts(const std::vector<std::string>& values) {
    list(values, [this](const std::string& one) { text(one); });
  }

 private:
  std::string& to_;
};

// Sticky error: after the first one every read gives zero, and the caller asks once at the end.
class field_reader {
 public:
  // `what` is read, for errors; it outlives the reader.
  field_reader(byte_span bytes, const char* what) : rest_(bytes), what_(what) {}

  template <class Integer>
  Integer integer() {
    if (rest_.size() < sizeof(Integer)) return fail("ends too early"), Integer{};
    const auto value = load_le<Integer>(rest_.data());
    rest_ = rest_.subspan(sizeof(Integer));
    return value;
  }
  template <class Enum>
  Enum enumeration(Enum lowest, Enum highest) {
    const auto value = static_cast<Enum>(integer<std::uint8_t>());
    if (value >= lowest && value <= highest) return value;
    fail("has a value out of range");
    return lowest;
  }
  bool flag() { return enumeration<std::uint8_t>(0, 1) != 0; }
  std::string text() {
    const auto size = integer<std::uint32_t>();
    if (size > rest_.size()) return fail("has a text longer than itself"), std::string{};
    std::string value{as_text(rest_.first(size))};
    rest_ = rest_.subspan(size);
    return value;
  }
  // `least` is the size of the smallest element: a count that cannot fit allocates nothing.
  template <class T, class Each>
  std::vector<T> list(std::size_t least, Each each) {
    const auto count = integer<std::uint32_t>();
    std::vector<T> values;
    if (count > rest_.size() / least) return fail("has a list longer than itself"), values;
    values.reserve(count);
    for (std::uint32_t i = 0; i < count && error_.empty(); ++i) values.push_back(each());
    return values;
  }
  std::vector<std::string> texts() {
    return list<std::string>(4, [this] { return text(); });
  }

  // Nothing is left, or something was wrong.
  bool over() const { return rest_.empty(); }
  void fail(const char* why) {
    if (error_.empty()) error_.assign(what_).append(" ").append(why);
    rest_ = {};
  }
  // The value, if nothing was wrong and nothing is left.
  template <class T>
  tl::expected<T, std::string> finish(T value) {
    if (error_.empty() && !rest_.empty()) fail("has bytes left over");
    if (!error_.empty()) return tl::unexpected<std::string>(error_);
    return value;
  }

 private:
  byte_span rest_;
  const char* what_;
  std::string error_;
};

}  // namespace pgsled
