#include "services/replicator/move/waiting.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pgsled::replicator {
namespace {

using kind = moving::wal::field::kind;
using testing::HasSubstr;

moving::table orders() {
  moving::table one;
  one.schema = "public";
  one.name = "orders";
  one.columns = {{"id", "bigint", 20}, {"note", "text", 25}};
  one.primary = {0};
  return one;
}
moving::kept_row row(const std::string& id, const std::string& note) {
  return {{kind::text, id}, {kind::text, note}};
}

TEST(waiting, a_row_is_read_as_it_was_written) {
  const auto read = row_of(orders(), R"(["5", null])");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at(0).value, "5");
  EXPECT_EQ(read->at(0).what, kind::text);
  EXPECT_EQ(read->at(1).what, kind::null);
  for (const char* bad : {R"(["5"])", R"(["5", 1])", R"({})", "", R"(["5", null)"}) {
    EXPECT_FALSE(row_of(orders(), bad)) << bad;
  }
  EXPECT_THAT(row_as_text(orders()), HasSubstr("num_nulls(\"note\") = 0"));
}

TEST(waiting, until_it_is_taken) {
  waiting_rows them("j", "s");
  EXPECT_TRUE(them.empty());
  const auto put = them.put(orders(), 2, "\"id\" = '5'", row("5", "it's"));
  EXPECT_THAT(put, HasSubstr("INSERT INTO pgsled.job_waiting"));
  EXPECT_THAT(put, HasSubstr("public.orders"));
  (void)them.put(orders(), 2, "\"id\" = '6'", row("6", ""));
  (void)them.put(orders(), 3, "\"id\" = '5'", row("5", ""));
  ASSERT_NE(them.find(2, "\"id\" = '5'"), nullptr);
  EXPECT_EQ(them.find(2, "\"id\" = '5'")->row.at(1).value, "it's");
  EXPECT_EQ(them.find(1, "\"id\" = '5'"), nullptr);
  EXPECT_THAT(them.take(2, "\"id\" = '5'"), HasSubstr("id = 1"));
  EXPECT_TRUE(them.any_of(2));
  EXPECT_THAT(them.take_table(2), HasSubstr("'{2}'"));
  EXPECT_FALSE(them.any_of(2));
  EXPECT_TRUE(them.any_of(3));
  EXPECT_EQ(them.ever(), 3u);
}

TEST(waiting, it_is_full_by_number_and_by_size) {
  waiting_rows many("j", "s"), large("j", "s");
  for (std::size_t i = 0; i < waiting_rows::most; ++i) {
    EXPECT_FALSE(many.full());
    (void)many.put(orders(), 0, std::to_string(i), row("1", ""));
  }
  EXPECT_TRUE(many.full());
  (void)large.put(orders(), 0, "1", row("1", std::string(waiting_rows::most_bytes, 'x')));
  EXPECT_TRUE(large.full());
  (void)large.take(0, "1");
  EXPECT_FALSE(large.full());
}

TEST(waiting, what_the_server_says_when_a_row_is_in_the_way) {
  EXPECT_TRUE(in_the_way({"23505", "", {}, {}}));
  EXPECT_TRUE(in_the_way({"23P01", "", {}, {}}));
  EXPECT_FALSE(in_the_way({"23503", "", {}, {}}));
  EXPECT_FALSE(in_the_way({"08006", "", {}, {}}));
}

}  // namespace
}  // namespace pgsled::replicator
