// What a pass over a client's input would send: input that passes and bytes of ours, in order.

#include "services/frontend/client/output.hpp"

#include <gtest/gtest.h>

namespace pgsled::frontend {
namespace {

using check = void (*)(std::string_view input);
check spilled_check = nullptr, restart_check = nullptr;

// The struct is the client's own affair; an explicit instantiation may name it nevertheless.
template <class Output>
struct checks {
  static void spilled(std::string_view input) {
    std::string scratch = "left over";
    Output out(scratch, as_bytes(input));
    EXPECT_TRUE(scratch.empty());
    out.pass(3);
    EXPECT_EQ(out.position(), 3U);
    EXPECT_TRUE(scratch.empty()) << "what passes unchanged is not copied";
    out.own() += "<one>";
    EXPECT_EQ(scratch, "abc<one>");
    out.skip(2);
    EXPECT_EQ(out.position(), 5U);
    out.own() += "<two>";
    out.pass(1);
    out.pass(1);
    out.skip(1);
    EXPECT_EQ(scratch, "abc<one><two>fg");
    out.pass(2);
    out.own();
    EXPECT_EQ(scratch, "abc<one><two>fgij");
    EXPECT_EQ(out.position(), input.size());
  }
  static void restart(std::string_view input) {
    std::string scratch;
    Output out(scratch, as_bytes(input));
    out.pass(2);
    out.own() += "gone";
    out.flush(nullptr);
    EXPECT_TRUE(scratch.empty());
    EXPECT_EQ(out.position(), 2U) << "the input is not read again";
    out.pass(2);
    EXPECT_EQ(out.own(), "cd");
    out.restart();
    EXPECT_TRUE(scratch.empty());
    out.pass(1);
    EXPECT_EQ(out.own(), "e") << "nothing twice";
    out.skip(1);
    out.restart();
    out.skip(1);
    EXPECT_EQ(out.own(), "");
    EXPECT_EQ(out.position(), 7U);
  }
  static inline const bool known = (spilled_check = &spilled, restart_check = &restart, true);
};
template struct checks<client::output>;

TEST(client_output, keeps_the_order_of_input_and_our_own) {
  ASSERT_NE(spilled_check, nullptr);
  spilled_check("abcdefghij");
}

TEST(client_output, sends_nothing_twice) {
  ASSERT_NE(restart_check, nullptr);
  restart_check("abcdefghij");
}

}  // namespace
}  // namespace pgsled::frontend
