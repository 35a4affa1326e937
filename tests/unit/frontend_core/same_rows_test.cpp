// What shards say of a statement that writes to each of them, and what follows from it.

#include "services/frontend/shards/same_rows.hpp"

#include <gtest/gtest.h>

#include "common/wire/messages.hpp"

namespace pgsled::frontend {
namespace {

namespace be = wire::backend;

const std::string one = "0000000000000000000000000000000a";
const std::string two = "00000000000000010000000000000000";

same_rows::statement insert(bool returning = false) {
  return {"INSERT INTO t VALUES (1)  ; -- so", "", std::string("\0\0\0\0\0\0", 6),
          {"\"t\"", "\"t\"", returning, true}, 0};
}
same_rows::statement update(bool returning = false) {
  return {"UPDATE t SET a = $1", std::string("\0\0\0\x14", 4), std::string("\0\0\0\0\0\0", 6),
          {"\"t\"", "\"t\"", returning, false}, 0};
}

using values = std::vector<std::optional<std::string>>;

// A server that answers.
struct shard {
  same_rows& to;
  void message(const std::string& whole) {
    to.heard(whole[0], as_bytes(whole).subspan(wire::header_size));
  }
  void row(const values& fields) {
    std::string bytes;
    wire::write_data_row(bytes, fields);
    message(bytes);
  }
  void tag(const std::string& text) {
    std::string bytes;
    wire::write_command_complete(bytes, text);
    message(bytes);
  }
  void error(const pg_error& why) {
    std::string bytes;
    wire::write_error(bytes, "ERROR", why);
    message(bytes);
  }
  void ready() {
    std::string bytes;
    wire::write_ready(bytes, 'T');
    message(bytes);
  }
  void says(const std::vector<values>& rows, const std::string& tag_) {
    for (const auto& each : rows) row(each);
    tag(tag_);
    ready();
  }
};

same_rows of(std::vector<same_rows::statement> run, bool simple = true) {
  return {simple, true, std::move(run), {}};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

TEST(same_rows, the_text_ends_with_the_digest_and_keeps_its_beginning) {
  EXPECT_EQ(same_rows::with_digest(insert(), true),
            "INSERT INTO t VALUES (1)\nRETURNING pg_catalog.md5(pg_catalog.concat("
            "\"t\".tableoid::pg_catalog.regclass, ' ', (\"t\".*)::pg_catalog.text)), "
            "(\"t\".*)::pg_catalog.text");
  auto asked = update(true);
  asked.sql = "UPDATE t SET a = ';' RETURNING a -- it";
  EXPECT_TRUE(same_rows::with_digest(asked, true)
                  .starts_with("UPDATE t SET a = ';' RETURNING a\n, pg_catalog.md5("));
}

TEST(same_rows, equal_rows_in_any_order) {
  auto all = of({update()});
  shard server{all};
  (void)all.say(0);
  server.says({{one}, {two}}, "UPDATE 2");
  EXPECT_FALSE(all.answered(0));
  (void)all.say(1);
  server.says({{two}, {one}}, "UPDATE 2");
  EXPECT_FALSE(all.answered(1));
  EXPECT_EQ(all.told(0).tag, "UPDATE 2");
  EXPECT_EQ(all.told(0).rows + all.told(0).columns, "");
}

TEST(same_rows, whatever_differs_is_an_error) {
  const std::vector<std::pair<std::vector<values>, std::string>> others = {
      {{{two}, {two}}, "UPDATE 2"}, {{{one}}, "UPDATE 1"},  {{}, "UPDATE 0"},
      {{{one}, {two}, {two}}, "UPDATE 3"}, {{{one}, {two}}, "UPDATE 3"}};
  for (const auto& [rows, tag] : others) {
    auto all = of({update()});
    shard server{all};
    (void)all.say(3);
    server.says({{one}, {two}}, "UPDATE 2");
    EXPECT_FALSE(all.answered(3));
    (void)all.say(5);
    server.says(rows, tag);
    const auto why = all.answered(5);
    ASSERT_TRUE(why);
    EXPECT_EQ(why->sqlstate, "0A000");
    EXPECT_TRUE(has(why->message, "shard 5 differs from shard 3")) << why->message;
  }
}

TEST(same_rows, what_the_client_gets_must_be_the_same_too) {
  for (const char* other : {"x", "y"}) {
    auto all = of({update(true)});
    shard server{all};
    (void)all.say(0);
    server.says({{"x", one}}, "UPDATE 1");
    EXPECT_FALSE(all.answered(0));
    std::string row;
    wire::write_data_row(row, {"x"});
    EXPECT_EQ(all.told(0).rows, row);
    (void)all.say(1);
    server.says({{other, one}}, "UPDATE 1");
    EXPECT_EQ(all.answered(1).has_value(), *other == 'y');
  }
}

TEST(same_rows, what_an_insert_has_made_goes_to_the_others) {
  auto all = of({insert(true)});
  shard server{all};
  auto said = all.say(0);
  EXPECT_EQ(said.owed.size(), 2U);   // and the question for the columns
  server.says({{"7", one, "(7,\"it's\")"}}, "INSERT 0 1");
  server.says({{"public.t", "id,a", "(r).id,(r).a", "t", "id,made,a"}}, "SELECT 1");
  EXPECT_FALSE(all.answered(0));
  said = all.say(1);
  EXPECT_EQ(said.owed.size(), 1U);
  EXPECT_TRUE(has(said.bytes,
                  "INSERT INTO public.t AS \"t\" (id,a) OVERRIDING SYSTEM VALUE SELECT "
                  "(r).id,(r).a FROM (VALUES ('(7,\"it''s\")'::public.t)) AS v(r) WHERE ("))
      << said.bytes;
  EXPECT_TRUE(has(said.bytes, ") = 'id,made,a' RETURNING ")) << "where the columns are so";
  server.says({{one}}, "INSERT 0 1");
  EXPECT_FALSE(all.answered(1));
  (void)all.say(2);
  server.says({{two}}, "INSERT 0 1");   // a trigger has changed it
  EXPECT_TRUE(all.answered(2));
}

TEST(same_rows, an_insert_is_said_again_where_text_carries_not_all) {
  auto all = of({insert()});
  shard server{all};
  (void)all.say(0);
  server.says({{one, "(1)"}}, "INSERT 0 1");
  server.says({{"public.t", "id", "(r).id", "f", "id"}}, "SELECT 1");
  EXPECT_FALSE(all.answered(0));
  EXPECT_TRUE(has(all.say(1).bytes, "INSERT INTO t VALUES (1)\nRETURNING"));
  server.says({{one, "(1)"}}, "INSERT 0 1");
  EXPECT_FALSE(all.answered(1));
}

TEST(same_rows, extended_with_formats_of_its_own_columns) {
  auto asked = update(true);
  asked.values = std::string("\0\0\0\0\0\2\0\1\0\1", 10);   // two result columns, both binary
  same_rows all(false, true, {asked}, {asked});
  const auto said = all.say(0);
  EXPECT_EQ(said.owed.size(), 9U);
  EXPECT_TRUE(has(said.bytes, std::string("\0\0\0\0\0\3\0\1\0\1\0\0", 12)));
  shard server{all};
  std::string types, columns, expected;
  wire::writer(types, be::parameter_description).i16(1).i32(20);
  wire::write_row_description(columns, {{"a", 25}, {"b", 25}, {"md5", 25}});
  wire::write_row_description(expected, {{"a", 25}, {"b", 25}});
  server.message(types);
  server.message(columns);
  server.ready();
  EXPECT_EQ(all.described(0).parameters, types);
  EXPECT_EQ(all.described(0).columns, expected);
  server.message(columns);
  server.says({{"x", std::nullopt, one}}, "UPDATE 1");
  EXPECT_FALSE(all.answered(0));
  EXPECT_EQ(all.told(0).columns, expected);
}

TEST(same_rows, a_limit_is_the_clients_alone) {
  for (std::size_t limit = 0; limit < 4; ++limit) {
    auto asked = update(true);
    asked.limit = limit;
    same_rows all(false, true, {asked}, {});
    shard server{all};
    (void)all.say(0);
    server.says({{"x", one}, {"y", two}}, "UPDATE 2");
    EXPECT_FALSE(all.answered(0));
    std::string rows;
    if (limit != 1) wire::write_data_row(rows, {"y"});
    EXPECT_TRUE(all.told(0).rows.ends_with(rows) && has(all.told(0).rows, "x"));
    EXPECT_EQ(has(all.told(0).rows, "y"), limit != 1);
    EXPECT_EQ(all.told(0).suspended, limit == 1 || limit == 2);
  }
}

TEST(same_rows, errors_of_servers_as_they_are_without_what_the_client_cannot_know) {
  const auto told = [](const pg_error& why, const std::string& position) {
    auto all = of({update()});
    shard server{all};
    (void)all.say(0);
    std::string bytes;
    wire::writer(bytes, be::error_response)
        .u8('S').text("ERROR").u8('C').text(why.sqlstate).u8('M').text(why.message)
        .u8('P').text(position).u8('n').text("t_pkey").u8(0);
    server.message(bytes);
    server.ready();
    return all.error_for(why);
  };
  const auto unique = told({"23505", "duplicate", {}, {}}, "7");
  EXPECT_TRUE(has(unique, "nt_pkey") && has(unique, "P7"));
  EXPECT_FALSE(has(told({"42601", "syntax", {}, {}}, "700"), "P700"));
  EXPECT_TRUE(has(told({"42501", "permission denied", {}, {}}, "1"), "SELECT"));
  EXPECT_TRUE(has(told({"42703", "column v.tableoid does not exist", {}, {}}, "90"), "0A000"));
  auto other = of({update()});
  EXPECT_EQ(other.error_for({"55000", "of ours", {}, {}}), "");
}

TEST(same_rows, what_cannot_be_read_is_an_error) {
  for (const std::string& body :
       {std::string(), std::string("\0\0", 2), std::string("\0\1\0\0\0\x20short", 11),
        std::string("\0\1\xff\xff\xff\xff", 6)}) {
    auto all = of({update()});
    shard server{all};
    (void)all.say(0);
    all.heard(be::data_row, as_bytes(body));
    server.tag("UPDATE 1");
    server.ready();
    ASSERT_TRUE(all.answered(0));
  }
  auto silent = of({update()});
  (void)silent.say(0);
  EXPECT_TRUE(silent.answered(0)) << "it has not said all";
}

TEST(same_rows, rows_that_are_held_have_a_bound) {
  auto all = of({update(true)});
  shard server{all};
  (void)all.say(0);
  const std::string mebibyte(1u << 20, 'x');
  for (int i = 0; i < 17; ++i) server.row({mebibyte, one});
  server.tag("UPDATE 17");
  server.ready();
  const auto why = all.answered(0);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->sqlstate, "54000");
  EXPECT_LE(all.told(0).rows.size(), same_rows::max_held + (1u << 20));
}

}  // namespace
}  // namespace pgsled::frontend
