#include <gtest/gtest.h>

#include "common/wire/messages.hpp"

namespace pgsled::wire {
namespace {

using namespace std::string_literals;

// The body of the only message in `bytes`, after checks of its frame.
byte_span only(const std::string& bytes, char type) {
  frame seen;
  EXPECT_EQ(peek(as_bytes(bytes), seen), frame_state::complete);
  EXPECT_EQ(seen.type, type);
  EXPECT_EQ(seen.total(), bytes.size());
  return as_bytes(bytes).subspan(header_size);
}

TEST(write, what_a_client_sends) {
  std::string to;
  write_query(to, "select 1");
  EXPECT_EQ(read_query(only(to, 'Q')).value(), "select 1");

  to.clear();
  const auto types = "\0\0\0\x14"s;
  write_parse(to, "s", "select $1", as_bytes(types));
  const auto parse = read_parse(only(to, 'P'));
  ASSERT_TRUE(parse);
  EXPECT_EQ(parse->name, "s");
  EXPECT_EQ(parse->sql, "select $1");
  EXPECT_EQ(as_text(parse->parameter_types), types);

  to.clear();
  write_close(to, 'S', "s");
  EXPECT_EQ(read_described(only(to, 'C')).value().name, "s");
  to.clear();
  write_describe(to, 'P', "c");
  EXPECT_EQ(read_described(only(to, 'D')).value().what, 'P');
  to.clear();
  write_sync(to);
  write_terminate(to);
  EXPECT_EQ(to, "S\0\0\0\4X\0\0\0\4"s);
}

TEST(write, startup_and_cancel) {
  std::string to;
  write_startup(to, protocol_3_0, {{"user", "u"}, {"", "lost"}, {"database", "d\0x"s}});
  EXPECT_EQ(load_be<std::uint32_t>(to.data()), to.size());
  const auto startup = read_startup(as_bytes(to).subspan(4));
  ASSERT_TRUE(startup);
  ASSERT_EQ(startup->parameters.size(), 2U);
  EXPECT_EQ(startup->parameters[1].second, "d");

  to.clear();
  write_cancel(to, 77, std::string(32, 's'));
  EXPECT_EQ(load_be<std::uint32_t>(to.data()), to.size());
  const auto cancel = read_startup(as_bytes(to).subspan(4));
  ASSERT_TRUE(cancel);
  EXPECT_EQ(cancel->cancel_pid, 77U);
  EXPECT_EQ(cancel->cancel_secret, std::string(32, 's'));
}

TEST(write, errors) {
  std::string to;
  write_error(to, "FATAL", pg_error{"08P01", "what", "do", "why"});
  const auto error = read_error(only(to, 'E'));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->severity, "FATAL");
  EXPECT_EQ(error->sqlstate, "08P01");
  EXPECT_EQ(error->message, "what");
  EXPECT_EQ(error->hint, "do");
  EXPECT_EQ(error->detail, "why");
  to.clear();
  write_notice(to, "WARNING", pg_error{"01000", "m", "", ""});
  EXPECT_EQ(to, "N\0\0\0\x21SWARNING\0VWARNING\0C01000\0Mm\0\0"s);
}

TEST(write, what_a_server_sends_at_start_up) {
  std::string to;
  write_ready(to, 'I');
  EXPECT_EQ(to, "Z\0\0\0\5I"s);
  to.clear();
  write_parameter_status(to, "a", "b");
  EXPECT_EQ(to, "S\0\0\0\x08" "a\0b\0"s);
  to.clear();
  write_backend_key(to, 1, "abcd");
  EXPECT_EQ(to, "K\0\0\0\x0c\0\0\0\1abcd"s);
  to.clear();
  write_authentication(to, 0);
  EXPECT_EQ(to, "R\0\0\0\x08\0\0\0\0"s);
  to.clear();
  write_authentication(to, 5, "salt");
  EXPECT_EQ(to, "R\0\0\0\x0c\0\0\0\5salt"s);
  to.clear();
  write_negotiate(to, protocol_3_2, {"_pq_.x"});
  EXPECT_EQ(to, "v\0\0\0\x13\0\3\0\2\0\0\0\1_pq_.x\0"s);
}

TEST(write, results) {
  std::string to;
  write_row_description(to, {{"n", 20}, {"t"}});
  EXPECT_EQ(to,
            "T\0\0\0\x2e\0\2"
            "n\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0"
            "t\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"s);
  to.clear();
  write_data_row(to, {"1", std::nullopt, ""});
  EXPECT_EQ(to, "D\0\0\0\x13\0\3\0\0\0\1" "1\xff\xff\xff\xff\0\0\0\0"s);
  to.clear();
  write_command_complete(to, "SELECT 1");
  EXPECT_EQ(to, "C\0\0\0\x0dSELECT 1\0"s);
  to.clear();
  write_empty(to, '1');
  EXPECT_EQ(to, "1\0\0\0\4"s);
}

}  // namespace
}  // namespace pgsled::wire
