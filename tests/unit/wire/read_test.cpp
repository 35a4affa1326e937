#include <gtest/gtest.h>

#include "common/wire/messages.hpp"

namespace pgsled::wire {
namespace {

using namespace std::string_literals;

byte_span body(const std::string& text) { return as_bytes(text); }

// Whatever is cut off at the end or added to it must be refused.
template <class Read>
void refuses_every_other_length(const std::string& good, Read read) {
  ASSERT_TRUE(read(body(good)).has_value());
  for (std::size_t length = 0; length < good.size(); ++length) {
    // Exact copies, so that the sanitizer sees a read past the end.
    const std::vector<std::uint8_t> cut(good.begin(), good.begin() + static_cast<long>(length));
    EXPECT_FALSE(read(byte_span(cut)).has_value()) << "cut to " << length;
  }
  EXPECT_FALSE(read(body(good + "\0"s)).has_value());
  EXPECT_FALSE(read(body(good + "x")).has_value());
}

TEST(read_parse, fields) {
  const auto good = "s1\0select $1\0\0\2\0\0\0\x14\0\0\0\x17"s;
  const auto message = read_parse(body(good));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->name, "s1");
  EXPECT_EQ(message->sql, "select $1");
  ASSERT_EQ(message->parameter_types.size(), 8U);
  EXPECT_EQ(load_be<std::uint32_t>(message->parameter_types.data()), 20U);
  refuses_every_other_length(good, read_parse);
}

TEST(read_parse, count_is_unsigned_and_must_fit) {
  EXPECT_FALSE(read_parse(body("\0q\0\xff\xff"s)));
  std::string most = "\0q\0\xff\xff"s + std::string(std::size_t{4} * 65535, '\0');
  ASSERT_TRUE(read_parse(body(most)));
}

TEST(read_bind, fields_and_parameters) {
  const auto good =
      "portal\0stmt\0\0\3\0\0\0\1\0\0\0\3\0\0\0\2ab\0\0\0\4\0\0\0\7\xff\xff\xff\xff\0\1\0\1"s;
  const auto message = read_bind(body(good));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->portal, "portal");
  EXPECT_EQ(message->statement, "stmt");
  EXPECT_EQ(message->parameters, 3);

  const auto first = bind_parameter(*message, 0);
  EXPECT_TRUE(first.present);
  EXPECT_FALSE(first.binary);
  EXPECT_EQ(as_text(first.value), "ab");
  const auto second = bind_parameter(*message, 1);
  EXPECT_TRUE(second.present);
  EXPECT_TRUE(second.binary);
  EXPECT_EQ(second.value.size(), 4U);
  const auto null = bind_parameter(*message, 2);
  EXPECT_FALSE(null.present);
  EXPECT_TRUE(null.value.empty());
  EXPECT_FALSE(bind_parameter(*message, 3).present);
  EXPECT_FALSE(bind_parameter(*message, 65535).present);
  refuses_every_other_length(good, read_bind);
}

TEST(read_bind, one_format_is_for_all) {
  const auto good = "\0\0\0\1\0\1\0\2\0\0\0\0\0\0\0\1x\0\0"s;
  const auto message = read_bind(body(good));
  ASSERT_TRUE(message);
  EXPECT_TRUE(bind_parameter(*message, 0).binary);
  EXPECT_TRUE(bind_parameter(*message, 0).present);
  EXPECT_TRUE(bind_parameter(*message, 0).value.empty());
  EXPECT_TRUE(bind_parameter(*message, 1).binary);
}

TEST(read_bind, number_of_formats) {
  const auto with = [](int formats, int parameters) {
    std::string text("\0\0", 2);
    text += "\0"s + static_cast<char>(formats) + std::string(std::size_t(2 * formats), '\0');
    text += "\0"s + static_cast<char>(parameters);
    for (int i = 0; i < parameters; ++i) text += "\xff\xff\xff\xff";
    return text + "\0\0"s;
  };
  EXPECT_TRUE(read_bind(body(with(0, 0))));
  EXPECT_TRUE(read_bind(body(with(1, 0))));  // PostgreSQL takes it
  EXPECT_TRUE(read_bind(body(with(0, 3))));
  EXPECT_TRUE(read_bind(body(with(1, 3))));
  EXPECT_TRUE(read_bind(body(with(3, 3))));
  EXPECT_FALSE(read_bind(body(with(2, 3))));
  EXPECT_FALSE(read_bind(body(with(2, 1))));
  EXPECT_FALSE(read_bind(body(with(2, 0))));
}

TEST(read_bind, length_of_a_value) {
  EXPECT_FALSE(read_bind(body("\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"s)));           // -2
  EXPECT_FALSE(read_bind(body("\0\0\0\0\0\1\x80\0\0\0\0\0"s)));                 // most negative
  EXPECT_FALSE(read_bind(body("\0\0\0\0\0\1\x7f\xff\xff\xff\0\0"s)));           // 2 GB
  EXPECT_FALSE(read_bind(body("\0\0\0\0\xff\xff\xff\xff\xff\xff\0\0"s)));       // 65535 values
}

TEST(read_described, statement_or_portal_only) {
  const auto good = "Sname\0"s;
  const auto message = read_described(body(good));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->what, 'S');
  EXPECT_EQ(message->name, "name");
  EXPECT_TRUE(read_described(body("P\0"s)));
  EXPECT_FALSE(read_described(body("Xname\0"s)));
  refuses_every_other_length(good, read_described);
}

TEST(read_execute, fields) {
  const auto good = "c\0\0\0\0\x32"s;
  const auto message = read_execute(body(good));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->portal, "c");
  EXPECT_EQ(message->max_rows, 50);
  refuses_every_other_length(good, read_execute);
}

TEST(read_query, fields) {
  EXPECT_EQ(read_query(body("select 1\0"s)).value(), "select 1");
  refuses_every_other_length("select 1\0"s, read_query);
}

TEST(read_error, fields_in_any_order) {
  const auto good = "SFEHLER\0Mno\0C42P01\0VERROR\0Dwhy\0Hdo\0Xnew\0\0"s;
  const auto error = read_error(body(good));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->severity, "ERROR");
  EXPECT_EQ(error->sqlstate, "42P01");
  EXPECT_EQ(error->message, "no");
  EXPECT_EQ(error->detail, "why");
  EXPECT_EQ(error->hint, "do");
  refuses_every_other_length(good, read_error);
  const auto of_old = "SFATAL\0Mno\0\0"s;
  const auto old = read_error(body(of_old));
  ASSERT_TRUE(old);
  EXPECT_EQ(old->severity, "FATAL");
  EXPECT_TRUE(old->sqlstate.empty());
  EXPECT_TRUE(read_error(body("\0"s)));
}

TEST(read_parameter_status, fields) {
  const auto good = "TimeZone\0UTC\0"s;
  const auto pair = read_parameter_status(body(good));
  ASSERT_TRUE(pair);
  EXPECT_EQ(pair->first, "TimeZone");
  EXPECT_EQ(pair->second, "UTC");
  refuses_every_other_length(good, read_parameter_status);
}

TEST(read_startup, parameters) {
  const auto good = "\0\3\0\0user\0u\0database\0d\0\0"s;
  const auto message = read_startup(body(good));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->code, protocol_3_0);
  ASSERT_EQ(message->parameters.size(), 2U);
  EXPECT_EQ(message->parameters[1], (std::pair<std::string, std::string>("database", "d")));
  refuses_every_other_length(good, read_startup);
  EXPECT_TRUE(read_startup(body("\0\3\0\2\0"s)));
  EXPECT_FALSE(read_startup(body("\0\3\0\0user\0\0"s)));  // the value is empty, no terminator
}

TEST(read_startup, requests) {
  EXPECT_EQ(read_startup(body("\x04\xd2\x16\x2f"s)).value().code, ssl_request_code);
  EXPECT_EQ(read_startup(body("\x04\xd2\x16\x30"s)).value().code, gssenc_request_code);
  EXPECT_FALSE(read_startup(body("\x04\xd2\x16\x2f\0"s)));
  EXPECT_FALSE(read_startup(body("\x04\xd2\x16\x30x"s)));
}

TEST(read_startup, cancel_with_short_and_long_secrets) {
  const auto head = "\x04\xd2\x16\x2e\0\0\1\2"s;
  const auto short_one = read_startup(body(head + "abcd"));
  ASSERT_TRUE(short_one);
  EXPECT_EQ(short_one->cancel_pid, 258U);
  EXPECT_EQ(short_one->cancel_secret, "abcd");
  EXPECT_EQ(read_startup(body(head + std::string(256, 'k'))).value().cancel_secret.size(), 256U);
  EXPECT_FALSE(read_startup(body(head + std::string(257, 'k'))));
  EXPECT_FALSE(read_startup(body(head + "abc")));
  EXPECT_FALSE(read_startup(body(head)));
  EXPECT_FALSE(read_startup(body("\x04\xd2\x16\x2e\0\0\1"s)));
}

TEST(read_startup, bounds_and_other_versions) {
  const auto with = [](std::size_t value) {
    return "\0\3\0\0user\0"s + std::string(value, 'u') + "\0\0"s;
  };
  EXPECT_TRUE(read_startup(body(with(max_startup_length - 11))));
  EXPECT_FALSE(read_startup(body(with(max_startup_length - 10))));
  EXPECT_EQ(read_startup(body("\0\2\0\0whatever"s)).value().code, 0x00020000U);
  EXPECT_EQ(read_startup(body("\0\3\xff\xff\0"s)).value().code, 0x0003ffffU);
}

}  // namespace
}  // namespace pgsled::wire
