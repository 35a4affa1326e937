#include <gtest/gtest.h>

#include "common/plan/plan.hpp"

namespace pgsled::plan {
namespace {

request some_request() {
  return {"db", "bob", "a, b", "SELECT $1", {20, 0, 23}, {7, 9}, std::string("\0tree\xff", 6),
          {"v", "*"}};
}
answer some_answer() {
  answer a{42, {}};
  a.plan.destination = destination::one_shard;
  a.plan.rows = {"\"t\"", "\"r\"", true, false};
  a.plan.access = access::write;
  a.plan.key = {key_source::literal, 3, true, -7};
  a.plan.rule = {placement::key_type::uuid, placement::hasher::sha1, 12345678901234567890u};
  a.plan.also_equal = {{key_source::parameter, 1, false, 0}, {key_source::constant, 0, false, 9},
                       {key_source::constant, 0, false, 0, 40, "text"}};
  a.plan.changes_catalog = a.plan.own_transaction = true;
  a.plan.spread_sequences_of = {"a.b", "c"};
  a.plan.unsettles = {"d", "e"};
  a.plan.error = {"0A000", "message", "hint", "detail"};
  a.plan.copy = {"s.t", "t", "id", {"a", "id"}, {}};
  a.plan.copy.options.null = {"a"};
  return a;
}

TEST(codec, request_round_trip) {
  std::string bytes;
  encode(some_request(), bytes);
  const auto back = decode_request(as_bytes(bytes));
  ASSERT_TRUE(back.has_value()) << back.error();
  EXPECT_EQ(back->tree, some_request().tree);
  EXPECT_EQ(back->parameter_types, some_request().parameter_types);
  EXPECT_EQ(back->literal_offsets, some_request().literal_offsets);
  EXPECT_EQ(back->search_path, "a, b");
  EXPECT_EQ(back->unsettled, some_request().unsettled);
  std::string again;
  encode(*back, again);
  EXPECT_EQ(again, bytes);
}

TEST(codec, answer_round_trip) {
  std::string bytes;
  encode(some_answer(), bytes);
  const auto back = decode_answer(as_bytes(bytes));
  ASSERT_TRUE(back.has_value()) << back.error();
  EXPECT_EQ(back->epoch, 42u);
  EXPECT_EQ(back->plan.key.constant, -7);
  EXPECT_EQ(back->plan.rule, some_answer().plan.rule);
  ASSERT_EQ(back->plan.also_equal.size(), 3u);
  EXPECT_EQ(back->plan.also_equal[2].limit, 40u);
  EXPECT_EQ(back->plan.also_equal[2].text, "text");
  EXPECT_EQ(back->plan.error.detail, "detail");
  EXPECT_EQ(back->plan.unsettles, some_answer().plan.unsettles);
  std::string again;
  encode(*back, again);
  EXPECT_EQ(again, bytes);
}

TEST(codec, every_cut_and_every_excess_is_an_error) {
  std::string request_bytes, answer_bytes;
  encode(some_request(), request_bytes);
  encode(some_answer(), answer_bytes);
  for (std::size_t i = 0; i < request_bytes.size(); ++i) {
    EXPECT_FALSE(decode_request(as_bytes(request_bytes).first(i)).has_value()) << i;
  }
  for (std::size_t i = 0; i < answer_bytes.size(); ++i) {
    EXPECT_FALSE(decode_answer(as_bytes(answer_bytes).first(i)).has_value()) << i;
  }
  EXPECT_FALSE(decode_request(as_bytes(request_bytes + "x")).has_value());
  EXPECT_FALSE(decode_answer(as_bytes(answer_bytes + "x")).has_value());
  // Every byte changed to every extreme: an error or a value, never a crash or a huge allocation.
  for (std::string* bytes : {&request_bytes, &answer_bytes}) {
    for (char& byte : *bytes) {
      const char kept = byte;
      for (const int value : {0, 1, 127, 128, 255}) {
        byte = static_cast<char>(value);
        (void)decode_request(as_bytes(*bytes));
        (void)decode_answer(as_bytes(*bytes));
      }
      byte = kept;
    }
  }
}

TEST(codec, enumerations_are_checked) {
  std::string bytes;
  encode(some_answer(), bytes);
  bytes[8] = 0;
  EXPECT_FALSE(decode_answer(as_bytes(bytes)).has_value());
  bytes[8] = 7;
  EXPECT_FALSE(decode_answer(as_bytes(bytes)).has_value());
}

}  // namespace
}  // namespace pgsled::plan
