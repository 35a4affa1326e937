#include "common/auth/saslprep.hpp"

#include <gtest/gtest.h>

#include <utility>

namespace pgsled::auth {
namespace {

// RFC 4013, section 3, and what PostgreSQL 15 made of these.
TEST(saslprep, maps_and_normalises) {
  for (const auto& [given, made] : {
           std::pair{"I\u00adX", "IX"}, {"user", "user"}, {"USER", "USER"}, {"\u00aa", "a"},
           {"\u2168", "IX"}, {"a\u00a0b\u3000c", "a b c"}, {"a\u200bb\u200dc", "a bc"},
           {"e\u0301", "\u00e9"}, {"\uff26\ufb01", "Ffi"}, {"\u05d0\u05d1", "\u05d0\u05d1"}}) {
    EXPECT_EQ(saslprep(given), made);
  }
}

TEST(saslprep, what_it_may_not_touch_stays) {
  for (const std::string given :
       {"", "\x07", "\u00ad\x07", "\u06271", "\u0627b\u00ad", "\ue000\u00ad", "\u0085\u00ad",
        "\u0340\u00ad", "\U0001f600\u00ad", "\u1d2c\u00ad", "\u00ad", "\xff\u00c2\u00ad",
        "\xed\xa0\x80\xc2\xad", "\u00ad\xc2"}) {
    EXPECT_EQ(saslprep(given), given);
  }
}

}  // namespace
}  // namespace pgsled::auth
