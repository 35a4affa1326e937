#include "common/wire/frame.hpp"

#include <gtest/gtest.h>

namespace pgsled::wire {
namespace {

TEST(peek, names_what_is_missing_or_wrong) {
  frame seen;
  EXPECT_EQ(peek(as_bytes(std::string_view("Q\0\0\0", 4)), seen), frame_state::partial_header);
  EXPECT_EQ(peek(as_bytes(std::string_view("Q\0\0\0\3", 5)), seen), frame_state::bad_length);
  EXPECT_EQ(peek(as_bytes("Q\xff\xff\xff\xff"), seen), frame_state::bad_length);
  EXPECT_EQ(peek(as_bytes(std::string_view("Q\x40\0\0\0", 5)), seen), frame_state::bad_length);
  EXPECT_EQ(peek(as_bytes(std::string_view("Q\0\0\0\x09", 5)), seen), frame_state::complete);
  EXPECT_EQ(seen.type, 'Q');
  EXPECT_EQ(seen.length, 5U);
  EXPECT_EQ(seen.total(), 10U);
}

TEST(reader, reads_fields_in_order) {
  const std::string_view body("\x07\xff\xfe\x80\0\0\1name\0rest", 16);
  reader from(as_bytes(body));
  EXPECT_EQ(from.u8(), 7);
  EXPECT_EQ(from.i16(), -2);
  EXPECT_EQ(from.u32(), 0x80000001U);
  EXPECT_EQ(from.text(), "name");
  EXPECT_EQ(from.left(), 4U);
  EXPECT_FALSE(from.finished());
  EXPECT_EQ(as_text(from.rest()), "rest");
  EXPECT_TRUE(from.finished());
}

TEST(reader, keeps_the_first_failure) {
  const std::string_view body("\0\0\0\1", 4);
  reader from(as_bytes(body));
  EXPECT_EQ(from.i16(), 0);
  EXPECT_EQ(from.i32(), 0);
  EXPECT_FALSE(from.ok());
  EXPECT_EQ(from.i16(), 0);  // two bytes were there, but not any more
  EXPECT_TRUE(from.text().empty());
  EXPECT_TRUE(from.bytes(0).empty());
  EXPECT_TRUE(from.rest().empty());
  EXPECT_FALSE(from.finished());
}

TEST(reader, text_needs_its_zero_byte) {
  reader from(as_bytes("abc"));
  EXPECT_TRUE(from.text().empty());
  EXPECT_FALSE(from.ok());
  reader nothing{byte_span{}};
  nothing.text();
  EXPECT_FALSE(nothing.ok());
}

TEST(reader, refuses_a_count_that_would_wrap) {
  reader from(as_bytes("abc"));
  EXPECT_TRUE(from.bytes(static_cast<std::size_t>(-1)).empty());
  EXPECT_FALSE(from.ok());
}

TEST(writer, patches_the_length_once) {
  std::string to = "x";
  {
    writer out(to, 'D');
    out.u8(1).i16(-1).i32(2).text("ab").raw("c");
    out.end();
    to += "after";
  }
  EXPECT_EQ(to, std::string_view("xD\0\0\0\x0f\1\xff\xff\0\0\0\2ab\0cafter", 22));
}

TEST(writer, text_ends_at_a_zero_byte) {
  std::string to;
  writer(to, 'S').text(std::string_view("a\0b", 3)).text("c");
  EXPECT_EQ(to, std::string_view("S\0\0\0\x08" "a\0c\0", 9));
}

}  // namespace
}  // namespace pgsled::wire
