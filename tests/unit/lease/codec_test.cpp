#include <gtest/gtest.h>

#include "common/lease/messages.hpp"

namespace pgsled::lease {
namespace {

std::string encoded(const message& from) {
  std::string bytes;
  encode(from, bytes);
  return bytes;
}

connection_state full_state() {
  connection_state state;
  state.settings = {{"search_path", "a, b"}, {"work_mem", ""}};
  state.statements = {statement_id{1, 2, 3}, statement_id{0xff}};
  state.unread = std::string("N\0\0\0\x04", 5);
  return state;
}

give_back returned(condition how) {
  give_back m;
  m.lease = 9;
  m.generation = 2;
  m.condition = how;
  m.state = full_state();
  return m;
}

std::vector<message> samples() {
  grant g{7, 1ull << 40, 3, 4711, {{"server_version", "15.20"}}, full_state()};
  const auto back = returned(condition::dirty);
  return {hello{"frontend-1.0", 12, "4026531840", {{1, 2}, {3, 4}}},
          hello{},
          demand{1, 5, 12, 0, 7},
          back,
          recall_ack{3},
          cancel{11, 4},
          orphans_left{2, 1},
          welcome{"pooler-1", 0x1122334455667788},
          g,
          recall{1, 2},
          retire{77},
          cancel_done{5, 6},
          pool_failed{4, pg_error{"28P01", "wrong password", "look at users.toml", "db1"}}};
}

TEST(lease_codec, every_message_survives_the_round_trip) {
  for (const auto& sample : samples()) {
    const auto bytes = encoded(sample);
    const auto back = decode(as_bytes(bytes));
    ASSERT_TRUE(back) << back.error();
    EXPECT_EQ(back->index(), sample.index());
    EXPECT_EQ(encoded(*back), bytes);
  }
}

TEST(lease_codec, every_truncation_and_every_trailing_byte_is_refused) {
  for (const auto& sample : samples()) {
    const auto bytes = encoded(sample);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(decode(as_bytes(bytes).first(size))) << sample.index() << " at " << size;
    }
    const auto longer = bytes + '\0';
    EXPECT_FALSE(decode(as_bytes(longer))) << sample.index();
  }
}

TEST(lease_codec, bytes_are_those_of_the_document) {
  EXPECT_EQ(encoded(demand{1, 5, 12, 0, 7}),
            std::string("\x01\x02\x01\0\0\0\x05\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0"
                        "\x07\0\0\0\0\0\0\0", 30));
  EXPECT_EQ(encoded(retire{77}), std::string("\x01\x13\x4d\0\0\0\0\0\0\0", 10));
}

TEST(lease_codec, fields_keep_their_values) {
  const auto back = decode(as_bytes(encoded(returned(condition::broken))));
  ASSERT_TRUE(back);
  const auto& m = std::get<give_back>(*back);
  EXPECT_EQ(m.lease, 9u);
  EXPECT_EQ(m.generation, 2u);
  EXPECT_EQ(m.condition, condition::broken);
  EXPECT_EQ(m.state.settings, full_state().settings);
  EXPECT_EQ(m.state.statements, full_state().statements);
  EXPECT_EQ(m.state.unread, full_state().unread);
}

TEST(lease_codec, refuses_impossible_input) {
  EXPECT_FALSE(decode({}));
  std::string bytes = encoded(demand{1, 5, 12, 0, 7});
  bytes[0] = 2;
  EXPECT_EQ(decode(as_bytes(bytes)).error(), "unknown version");
  bytes[0] = 1;
  bytes[1] = 99;
  EXPECT_EQ(decode(as_bytes(bytes)).error(), "unknown message");
  // A count that does not fit into what was received allocates nothing.
  const std::string huge("\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff", 22);
  EXPECT_EQ(decode(as_bytes(huge)).error(), "truncated");
  EXPECT_EQ(decode(as_bytes(std::string(max_message_bytes + 1, '\1'))).error(), "too long");
  bytes = encoded(returned(condition::broken));
  bytes[14] = 3;
  EXPECT_EQ(decode(as_bytes(bytes)).error(), "unknown condition");
  EXPECT_FALSE(decode(as_bytes(encoded(pool_failed{1, pg_error{"1234", "m", "", ""}}))));
}

TEST(lease_codec, more_statements_than_the_bound_are_refused) {
  give_back m;
  m.state.statements.resize(max_statements);
  EXPECT_TRUE(decode(as_bytes(encoded(m))));
  m.state.statements.resize(max_statements + 1);
  EXPECT_FALSE(decode(as_bytes(encoded(m))));
}

}  // namespace
}  // namespace pgsled::lease
