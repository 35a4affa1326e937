// The answers to several statements of one Query as one.

#include "services/frontend/statements/query_steps.hpp"

#include <gtest/gtest.h>

#include "common/wire/messages.hpp"

namespace pgsled::frontend {
namespace {

namespace be = wire::backend;

std::string error_at(const char* position, char type = be::error_response) {
  std::string message;
  wire::writer(message, type).raw(std::string("SERROR\0C22012\0P", 15) + position +
                                  std::string("\0Mwhy\0\0", 7));
  return message;
}

std::string answer() {
  std::string bytes;
  wire::writer(bytes, be::data_row).i16(1).i32(1).raw("x");
  wire::write_command_complete(bytes, "SELECT 1");
  return bytes;
}

query_steps two(query_steps::counted how = query_steps::counted::bytes) {
  return {"SELECT 'x'; SELECT 2", {{0, 10}, {12, 8}}, how};
}

// Cut anywhere.
std::string pass(query_steps& steps, const std::string& bytes, std::size_t piece) {
  std::string to;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    steps.pass(std::string_view(bytes).substr(at, piece), to);
  }
  return to;
}

TEST(query_steps, are_taken_in_order) {
  auto steps = two();
  std::string first, second, expected;
  EXPECT_TRUE(steps.more());
  EXPECT_FALSE(steps.last());
  steps.take(first, false);
  wire::write_query(expected, "SELECT 'x'");
  EXPECT_EQ(first, expected);
  EXPECT_TRUE(steps.last());
  EXPECT_EQ(steps.next_text(), "SELECT 2");
  steps.take(second, false);
  expected.clear();
  wire::write_query(expected, "SELECT 2");
  EXPECT_EQ(second, expected);
  EXPECT_FALSE(steps.more());
}

TEST(query_steps, readiness_is_not_told) {
  for (std::size_t piece = 1; piece < 20; ++piece) {
    auto steps = two();
    std::string ready = answer();
    wire::write_ready(ready, 'T');
    EXPECT_EQ(pass(steps, ready + answer(), piece), answer() + answer());
    EXPECT_FALSE(steps.failed());
  }
}

TEST(query_steps, an_error_ends_them_and_is_placed_in_the_whole_text) {
  for (std::size_t piece = 1; piece < 40; ++piece) {
    auto steps = two();
    std::string taken;
    steps.take(taken, false);
    EXPECT_EQ(pass(steps, error_at("8", be::notice_response), piece),
              error_at("8", be::notice_response));
    EXPECT_TRUE(steps.more());
    steps.take(taken, false);
    EXPECT_EQ(pass(steps, answer() + error_at("8"), piece), answer() + error_at("20"));
    EXPECT_TRUE(steps.failed());
    EXPECT_FALSE(steps.more());
  }
}

TEST(query_steps, positions_count_characters) {
  query_steps steps("SELECT 'é'; SELECT 2", {{0, 11}, {13, 8}}, query_steps::counted::utf8);
  std::string taken;
  steps.take(taken, false);
  steps.take(taken, false);
  EXPECT_EQ(pass(steps, error_at("1"), 7), error_at("13"));
  auto unknown = two(query_steps::counted::unknown);
  unknown.take(taken, false);
  unknown.take(taken, false);
  std::string without;
  wire::writer(without, be::error_response).raw(std::string("SERROR\0C22012\0Mwhy\0\0", 20));
  EXPECT_EQ(pass(unknown, error_at("1"), 7), without);
}

TEST(query_steps, the_last_tag_waits_for_the_end_of_an_implicit_block) {
  for (const bool well : {true, false}) {
    auto steps = two();
    std::string taken, ready, tag;
    wire::write_ready(ready, 'I');
    wire::write_command_complete(tag, "SELECT 1");
    steps.take(taken, true);
    EXPECT_EQ(pass(steps, answer(), 3), answer());
    steps.take(taken, true);
    EXPECT_EQ(pass(steps, answer() + ready, 3) + tag, answer());
    steps.end();
    EXPECT_FALSE(steps.over());
    EXPECT_EQ(pass(steps, (well ? "" : error_at("1")) + ready, 100),
              well ? tag + ready : error_at("13") + ready);
    EXPECT_TRUE(steps.over());
  }
}

}  // namespace
}  // namespace pgsled::frontend
