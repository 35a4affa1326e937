#include "common/copy/scatter.hpp"

#include <gtest/gtest.h>

namespace pgsled::copy {
namespace {

std::string message(std::string_view payload) {
  std::string made;
  begin_copy_data(made, payload.size());
  return made.append(payload);
}

TEST(scatter, makes_one_message_a_shard) {
  scatter held{3};
  held.hold(as_bytes("head"));
  held.hold(as_bytes("row1row2row3"));
  held.sent(held.unsent().size());
  held.hold(as_bytes("later"));
  std::vector<std::string> to(3);
  ASSERT_TRUE(held.apply({{4, to_all, 1, 1}, {4, 2, 1, 1}, {4, 0, 1, 1}, {3, 2, 1, 1}}, to));
  EXPECT_EQ(to[0], message("headrow2"));
  EXPECT_EQ(to[1], message("head"));
  EXPECT_EQ(to[2], message("headrow1row"));
  EXPECT_EQ(held.held(), 6u);
  EXPECT_EQ(as_text(held.unsent()), "later");
  EXPECT_EQ(held.client_line(0, 2), 3u);
  EXPECT_EQ(held.client_line(2, 3), 4u);
  EXPECT_FALSE(held.client_line(1, 2));
  held.sent(5);
  to.assign(3, {});
  ASSERT_TRUE(held.apply({{6, to_nobody, 0, 0}}, to));
  EXPECT_EQ(to, std::vector<std::string>(3));
  EXPECT_EQ(held.held(), 0u);
}

TEST(scatter, cuts_of_what_was_not_sent_do_nothing) {
  scatter held{2};
  held.hold(as_bytes("abcdef"));
  held.sent(3);
  std::vector<std::string> to(2);
  EXPECT_FALSE(held.apply({{2, 1, 0, 0}, {2, 0, 0, 0}}, to));
  EXPECT_FALSE(held.apply({{1, 2, 0, 0}}, to));
  EXPECT_EQ(to, std::vector<std::string>(2));
  EXPECT_EQ(held.held(), 6u);
}

}  // namespace
}  // namespace pgsled::copy
