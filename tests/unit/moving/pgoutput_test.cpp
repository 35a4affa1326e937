#include "common/moving/pgoutput.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/moving/follower.hpp"
#include "common/placement/hash.hpp"

namespace pgsled::moving {
namespace {

using testing::HasSubstr;

template <class Integer>
std::string be(Integer value) {
  std::string to(sizeof value, '\0');
  store_be(to.data(), value);
  return to;
}
std::string zero(std::string_view text) { return std::string(text) + '\0'; }
std::string value(std::string_view text) {
  return "t" + be(static_cast<std::uint32_t>(text.size())) + std::string(text);
}
// "-": NULL, "?": unchanged, else a value.
std::string tuple(const std::vector<std::string>& fields) {
  std::string to = be(static_cast<std::uint16_t>(fields.size()));
  for (const auto& one : fields) to += one == "-" ? "n" : one == "?" ? "u" : value(one);
  return to;
}
std::string begin(std::uint64_t position = 16) {
  return "B" + be(position) + be(std::int64_t{1}) + be(7u);
}
std::string commit(std::uint64_t end) {
  return std::string("C") + '\0' + be(end - 1) + be(end) + be(std::int64_t{1});
}
std::string relation(std::uint32_t id, const std::string& name,
                     const std::vector<std::pair<std::string, std::uint32_t>>& columns) {
  std::string to = "R" + be(id) + zero("public") + zero(name) + "d" +
                   be(static_cast<std::uint16_t>(columns.size()));
  for (const auto& [column, type] : columns) {
    to += std::string(1, '\1') + zero(column) + be(type) + be(std::int32_t{-1});
  }
  return to;
}
std::string insert(std::uint32_t id, const std::vector<std::string>& row) {
  return "I" + be(id) + "N" + tuple(row);
}
std::string update(std::uint32_t id, const std::vector<std::string>& row,
                   const std::vector<std::string>& old = {}, char kind = 'K') {
  return "U" + be(id) + (old.empty() ? "" : std::string(1, kind) + tuple(old)) + "N" + tuple(row);
}
std::string erase(std::uint32_t id, const std::vector<std::string>& old, char kind = 'K') {
  return "D" + be(id) + std::string(1, kind) + tuple(old);
}
std::string message(std::string_view prefix, std::string_view content) {
  return "M" + std::string(1, '\1') + be(std::uint64_t{5}) + zero(prefix) +
         be(static_cast<std::uint32_t>(content.size())) + std::string(content);
}

std::vector<std::string> samples() {
  return {begin(),
          commit(9),
          "O" + be(std::uint64_t{3}) + zero("pgsled_x"),
          relation(5, "t", {{"id", 20}, {"v", 25}}),
          "Y" + be(77u) + zero("public") + zero("mood"),
          insert(5, {"1", "-"}),
          update(5, {"1", "?"}),
          update(5, {"2", "x"}, {"1", "-"}),
          erase(5, {"1", "-"}),
          "T" + be(2u) + std::string(1, '\0') + be(5u) + be(6u),
          message("pgsled", "mark")};
}

TEST(pgoutput, what_is_cut_or_too_long_is_refused) {
  for (const std::string& whole : samples()) {
    ASSERT_TRUE(wal::decode(as_bytes(whole))) << whole[0];
    for (std::size_t cut = 0; cut < whole.size(); ++cut) {
      EXPECT_FALSE(wal::decode(as_bytes(whole.substr(0, cut)))) << whole[0] << cut;
    }
    EXPECT_FALSE(wal::decode(as_bytes(whole + '\0'))) << whole[0];
  }
  EXPECT_FALSE(wal::decode(as_bytes("Z")));
  EXPECT_FALSE(wal::decode(as_bytes("I" + be(5u) + "N" + be(std::uint16_t{0xffff}))));
  EXPECT_FALSE(wal::decode(as_bytes("T" + be(0xffffffffu) + std::string(1, '\0'))));
}

TEST(pgoutput, fields) {
  const std::string bytes = update(5, {"2", "?"}, {"1", "-"}, 'O');   // what is decoded borrows
  const auto row = wal::decode(as_bytes(bytes));
  ASSERT_TRUE(row);
  const auto& got = std::get<wal::update>(*row);
  EXPECT_EQ(got.old_kind, 'O');
  EXPECT_EQ(got.old.at(0).value, "1");
  EXPECT_EQ(got.old.at(1).what, wal::field::kind::null);
  EXPECT_EQ(got.row.at(1).what, wal::field::kind::unchanged);
}

TEST(pgoutput, frames_and_positions) {
  const std::string frame =
      "w" + be(std::uint64_t{1}) + be(std::uint64_t{2}) + be(std::int64_t{3}) + "abc";
  const auto data = decode_frame(as_bytes(frame));
  ASSERT_TRUE(data);
  EXPECT_TRUE(data->data);
  EXPECT_EQ(as_text(data->payload), "abc");
  const auto alive =
      decode_frame(as_bytes("k" + be(std::uint64_t{2}) + be(std::int64_t{3}) + "\1"));
  ASSERT_TRUE(alive);
  EXPECT_TRUE(alive->wants_reply);
  EXPECT_EQ(alive->server_end, 2u);
  EXPECT_FALSE(decode_frame(as_bytes("k12")));
  EXPECT_FALSE(decode_frame(as_bytes("")));
  EXPECT_EQ(encode_status(0x0102, 0).size(), 34u);
  EXPECT_EQ(encode_status(0x0102, 0)[8], '\2');
  EXPECT_EQ(lsn_to_text(0x16'B374D848), "16/B374D848");
  EXPECT_EQ(lsn_from_text("16/B374D848"), 0x16'B374D848u);
  EXPECT_FALSE(lsn_from_text("16"));
  EXPECT_FALSE(lsn_from_text("16/x"));
}

table orders() {
  table t;
  t.schema = "public";
  t.name = "orders";
  t.columns = {{"id", "bigint", 20, -1, true}, {"who", "bigint", 20, -1, false},
               {"note", "text", 25, -1, false}};
  t.primary = {0, 1};
  t.key = 1;
  return t;
}

// Two buckets, of which the first moves. A key of each.
std::string key_in(std::uint64_t bucket) {
  for (std::int64_t key = 1;; ++key) {
    if (placement::hash_bigint(key) % 2 == bucket) return std::to_string(key);
  }
}

struct following {
  table of;
  follower it;
  std::string mine = key_in(0), others = key_in(1);

  explicit following(table one = orders(), bool complete = false, lsn agreed = 0)
      : of(std::move(one)), it{{of}, {2, {0}, complete}, agreed} {
    if (agreed > 0) return;
    EXPECT_EQ(sql(relation(5, "orders", {{"id", 20}, {"who", 20}, {"note", 25}})), "");
  }

  std::string touched;                 // by the last message

  std::string sql(const std::string& bytes) {
    touched.clear();
    const auto decoded = wal::decode(as_bytes(bytes));
    if (!decoded) return "undecodable";
    const auto got = it.feed(*decoded);
    if (!got) return "error: " + got.error().message;
    std::string all;
    for (const auto& one : *got) {
      for (const auto& row : one.rows) touched += row + ";";
      if (one.what == follow_action::kind::commit) all += "commit";
      if (one.what == follow_action::kind::marker) all += "marker " + one.content;
      all += one.sql + (one.touches ? " (" + std::to_string(*one.touches) + ")" : "");
    }
    return all;
  }
};

TEST(follower, only_rows_of_moving_buckets) {
  following f;
  EXPECT_EQ(f.sql(begin()), "");
  EXPECT_EQ(f.sql(insert(5, {"1", f.others, "x"})), "");
  EXPECT_EQ(f.sql(insert(5, {"1", "-", "x"})), "") << "a row without key is in no bucket";
  EXPECT_EQ(f.sql(insert(5, {"1", f.mine, "it's \\"})),
            "INSERT INTO \"public\".\"orders\" (\"id\", \"who\", \"note\") OVERRIDING SYSTEM VALUE "
            "VALUES ( E'1', E'" + f.mine + "', E'it''s \\\\') (1)");
  EXPECT_EQ(f.sql(update(5, {"1", f.mine, "-"})),
            "UPDATE ONLY \"public\".\"orders\" SET \"who\" = E'" + f.mine +
                "', \"note\" = NULL WHERE \"id\" = E'1' AND \"who\" = E'" + f.mine + "' (1)");
  EXPECT_THAT(f.sql(update(5, {"1", f.mine, "?"})), testing::Not(HasSubstr("note")));
  EXPECT_EQ(f.sql(update(5, {"1", f.others, "x"})), "");
  EXPECT_EQ(f.sql(erase(5, {"1", f.others, "-"})), "");
  EXPECT_THAT(f.sql(erase(5, {"1", f.mine, "-"})), HasSubstr("DELETE FROM ONLY"));
  EXPECT_EQ(f.sql(commit(9)), "commit");
}

TEST(follower, where_every_row_has_a_destination_one_without_a_key_is_a_mistake) {
  following f(orders(), true);
  EXPECT_EQ(f.sql(begin()), "");
  EXPECT_EQ(f.sql(insert(5, {"1", f.others, "x"})), "");
  EXPECT_THAT(f.sql(insert(5, {"1", "-", "x"})), HasSubstr("error: the changes of table"));
}

// What is needed when a row of another source is in the way.
TEST(follower, keeps_what_a_row_was_and_is_when_asked_to) {
  const following f;
  follower it({orders()}, {2, {0}}, 0, true);
  const auto feed = [&](const std::string& bytes) {
    const auto got = it.feed(wal::decode(as_bytes(bytes)).value());
    return got.value().empty() ? follow_action{} : got->front();
  };
  (void)feed(relation(5, "orders", {{"id", 20}, {"who", 20}, {"note", 25}}));
  (void)feed(begin());
  const auto made = feed(insert(5, {"1", f.mine, "-"}));
  EXPECT_FALSE(made.had);
  ASSERT_TRUE(made.row);
  EXPECT_EQ(made.row->at(1).value, f.mine);
  EXPECT_EQ(insertion(orders(), borrowed(*made.row)).value(), made.sql);
  EXPECT_EQ(known_by(orders(), borrowed(*made.row)).value(), made.rows.back());
  const auto changed = feed(update(5, {"1", f.mine, "?"}));
  EXPECT_TRUE(changed.had);
  ASSERT_TRUE(changed.row);
  EXPECT_FALSE(insertion(orders(), borrowed(*changed.row))) << "a value of it is not known";
  const auto gone = feed(erase(5, {"1", f.mine, "-"}));
  EXPECT_TRUE(gone.had);
  EXPECT_FALSE(gone.row);
  EXPECT_EQ(gone.rows.front(), made.rows.back());
}

TEST(follower, a_truncate_takes_away_the_rows_of_its_source_alone) {
  auto of = orders();
  EXPECT_EQ(truncated(of, {2, {0}}),
            "DELETE FROM ONLY \"public\".\"orders\" WHERE " + where_moving(of, {2, {0}}));
  of.home = table_home{0, {}, {3, {1, 2}}};
  EXPECT_EQ(truncated(of, {2, {0}}),
            "DELETE FROM ONLY \"public\".\"orders\" WHERE " + where_moving(of, {2, {0}}) + " AND " +
                moves_in_sql(of.home->by, "\"id\"", {3, {1, 2}}));
}

TEST(follower, rows_that_lists_place_go_to_their_shard) {
  auto of = orders();
  of.key = 0;
  of.by.type = placement::key_type::bigint;
  of.by.mapping = placement::mapping{1, "bigint", {{"1", 0}, {"2", 1}}, {}, -1};
  follower mine({of}, {4, {0}, true, 1});
  const auto feed = [&](const std::string& bytes) {
    return mine.feed(wal::decode(as_bytes(bytes)).value());
  };
  ASSERT_TRUE(feed(begin()));
  ASSERT_TRUE(feed(relation(5, "orders", {{"id", 20}, {"who", 20}, {"note", 25}})));
  EXPECT_EQ(feed(insert(5, {"1", "8", "-"}))->size(), 0u);
  EXPECT_EQ(feed(insert(5, {"2", "8", "-"}))->size(), 1u);
  const auto nowhere = feed(insert(5, {"3", "8", "-"}));
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("no list and no range"));
}

// Of rows that are equal one is changed, whichever; it is compared with all of its key.
TEST(follower, without_a_primary_key) {
  auto keyless = orders();
  keyless.primary.clear();
  following f(keyless);
  const auto one = "ctid = (SELECT ctid FROM ONLY \"public\".\"orders\" WHERE \"who\" = E'" +
                   f.mine + "' AND num_nulls(\"id\") = 0 AND format('%s', \"id\") = E'1' AND "
                   "num_nulls(\"who\") = 0 AND format('%s', \"who\") = E'" + f.mine +
                   "' AND num_nulls(\"note\") = 1 LIMIT 1) (1)";
  EXPECT_EQ(f.sql(update(5, {"1", f.mine, "it"}, {"1", f.mine, "-"}, 'O')),
            "UPDATE ONLY \"public\".\"orders\" SET \"who\" = E'" + f.mine +
                "', \"note\" = E'it' WHERE " + one);
  const auto row = " E'" + f.mine + "';";
  EXPECT_EQ(f.touched, row + row);
  EXPECT_EQ(f.sql(erase(5, {"1", f.mine, "-"})),
            "DELETE FROM ONLY \"public\".\"orders\" WHERE " + one);
  EXPECT_EQ(f.touched, row);
  EXPECT_THAT(f.sql(insert(5, {"1", f.mine, "-"})), HasSubstr("INSERT"));
  EXPECT_EQ(f.touched, row);
  EXPECT_THAT(f.sql(update(5, {"1", f.mine, "it"})), HasSubstr("error: ")) << "which was it?";
  EXPECT_THAT(f.sql(erase(5, {"1", f.mine, "?"})), HasSubstr("error: "));
  keyless.key = table::none;
  following all(keyless);
  EXPECT_THAT(all.sql(erase(5, {"1", "-", "-"})), HasSubstr("num_nulls(\"who\") = 1"));
  EXPECT_EQ(all.touched, "true;");
}

TEST(follower, rows_that_change_their_bucket) {
  following f;
  EXPECT_THAT(f.sql(update(5, {"1", f.others, "x"}, {"1", f.mine, "-"})),
              HasSubstr("DELETE FROM ONLY"));
  EXPECT_THAT(f.sql(update(5, {"1", f.mine, "x"}, {"1", f.others, "-"})), HasSubstr("INSERT"));
  EXPECT_THAT(f.sql(update(5, {"1", f.mine, "?"}, {"1", f.others, "old"}, 'O')),
              HasSubstr("E'old'"));
  EXPECT_THAT(f.sql(update(5, {"1", f.mine, "?"}, {"1", f.others, "-"})), HasSubstr("error: "));
}

TEST(follower, what_pgsled_replayed_is_left_out) {
  following f;
  f.sql(begin());
  EXPECT_EQ(f.sql("O" + be(std::uint64_t{3}) + zero("pgsled_clean")), "");
  EXPECT_EQ(f.sql(insert(5, {"1", f.mine, "x"})), "");
  EXPECT_EQ(f.sql(commit(9)), "commit");
  f.sql(begin());
  EXPECT_THAT(f.sql(insert(5, {"1", f.mine, "x"})), HasSubstr("INSERT")) << "the next is not";
  f.sql(begin());
  f.sql("O" + be(std::uint64_t{3}) + zero("pg_16400"));
  EXPECT_THAT(f.sql(insert(5, {"2", f.mine, "x"})), HasSubstr("INSERT")) << "of a subscription";
}

TEST(follower, truncate_markers_and_other_tables) {
  following f;
  EXPECT_THAT(f.sql("T" + be(1u) + std::string(1, '\0') + be(5u)),
              HasSubstr("DELETE FROM ONLY \"public\".\"orders\" WHERE " +
                        where_moving(orders(), {2, {0}})));
  EXPECT_EQ(f.sql(message("pgsled", "mark")), "marker mark");
  EXPECT_EQ(f.sql(message("other", "mark")), "");
  f.sql(relation(6, "else", {{"id", 20}}));
  EXPECT_EQ(f.sql(insert(6, {"1"})), "");
}

// A table that has got `note` and lost `gone`, as was agreed at a position behind the transaction.
TEST(follower, rows_of_a_table_as_it_was) {
  following f(orders(), false, 1000);
  EXPECT_EQ(f.sql(begin(999)), "");
  EXPECT_EQ(f.sql(relation(5, "orders", {{"gone", 16}, {"id", 20}, {"who", 20}})), "");
  EXPECT_EQ(f.sql(insert(5, {"t", "1", f.mine})),
            "INSERT INTO \"public\".\"orders\" (\"id\", \"who\") OVERRIDING SYSTEM VALUE VALUES "
            "( E'1', E'" + f.mine + "') (1)");
  EXPECT_EQ(f.sql(insert(5, {"t", "1", f.others})), "");
  EXPECT_EQ(f.sql(update(5, {"f", "2", f.mine}, {"-", "1", f.mine})),
            "UPDATE ONLY \"public\".\"orders\" SET \"who\" = E'" + f.mine +
                "' WHERE \"id\" = E'1' AND \"who\" = E'" + f.mine + "' (1)");
  EXPECT_EQ(f.sql(erase(5, {"-", "1", f.mine})),
            "DELETE FROM ONLY \"public\".\"orders\" WHERE \"id\" = E'1' AND \"who\" = E'" +
                f.mine + "' (1)");
  EXPECT_THAT(f.sql(insert(5, {"t", "1"})), HasSubstr("number of columns"));
  // As it is now, and again as it was: that was changed after all had agreed.
  EXPECT_EQ(f.sql(relation(5, "orders", {{"id", 20}, {"who", 20}, {"note", 25}})), "");
  EXPECT_EQ(f.sql(begin(1000)), "");
  EXPECT_THAT(f.sql(insert(5, {"1", f.mine, "x"})), HasSubstr("INSERT"));
  EXPECT_FALSE(f.it.columns_changed());
  EXPECT_THAT(f.sql(relation(5, "orders", {{"id", 20}, {"who", 20}})),
              HasSubstr("changed during the move"));
  EXPECT_TRUE(f.it.columns_changed());
}

TEST(follower, a_table_as_it_was_is_not_followed_later_nor_with_other_types) {
  following late(orders(), false, 1000);
  late.sql(begin(999));
  EXPECT_EQ(late.sql(relation(5, "orders", {{"id", 20}, {"who", 20}})), "");
  late.sql(begin(1000));
  EXPECT_THAT(late.sql(erase(5, {"1", late.mine})), HasSubstr("changed during the move"));
  EXPECT_TRUE(late.it.columns_changed());
  following other(orders(), false, 1000);
  other.sql(begin(999));
  EXPECT_THAT(other.sql(relation(5, "orders", {{"id", 23}, {"who", 20}})),
              HasSubstr("column id had another type before"));
  EXPECT_FALSE(other.it.columns_changed());
  following keyless(orders(), false, 1000);
  keyless.sql(begin(999));
  EXPECT_EQ(keyless.sql(relation(5, "orders", {{"id", 20}})), "");
  EXPECT_THAT(keyless.sql(insert(5, {"1"})), HasSubstr("a sharding key is not"));
}

TEST(follower, equal_rows_of_a_table_as_it_was) {
  auto one = orders();
  one.primary.clear();
  following f(one, false, 1000);
  f.sql(begin(1));
  f.sql(relation(5, "orders", {{"who", 20}, {"note", 25}}));
  EXPECT_EQ(f.sql(erase(5, {f.mine, "n"}, 'O')),
            "DELETE FROM ONLY \"public\".\"orders\" WHERE ctid = (SELECT ctid FROM ONLY "
            "\"public\".\"orders\" WHERE \"who\" = E'" + f.mine + "' AND num_nulls(\"who\") = 0 "
            "AND format('%s', \"who\") = E'" + f.mine + "' AND num_nulls(\"note\") = 0 AND "
            "format('%s', \"note\") = E'n' LIMIT 1) (1)");
}

TEST(follower, what_cannot_be_followed_ends_it) {
  EXPECT_THAT(following().sql(relation(5, "orders", {{"id", 20}, {"who", 20}})),
              HasSubstr("changed during the move"));
  EXPECT_THAT(following().sql(relation(5, "orders", {{"id", 20}, {"who", 20}, {"note", 1043}})),
              HasSubstr("changed during the move"));
  EXPECT_THAT(following().sql(insert(77, {"1"})), HasSubstr("error: "));
  EXPECT_THAT(following().sql(insert(5, {"1"})), HasSubstr("number of columns"));
  EXPECT_THAT(following().sql(insert(5, {"1", "x1", "y"})), HasSubstr("error: "));
  EXPECT_THAT(following().sql(erase(5, {"-", following().mine, "-"})),
              HasSubstr("without its primary key"));
}

}  // namespace
}  // namespace pgsled::moving
