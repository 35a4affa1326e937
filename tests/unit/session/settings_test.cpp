#include "common/session/settings.hpp"

#include <gtest/gtest.h>

namespace pgsled::session {
namespace {

pair_set set_of(pairs entries) {
  pair_table table;
  const auto made = table.intern(std::move(entries));
  return {made->entries, made->parse_context};
}

TEST(pair_table, equal_sets_are_one_object) {
  pair_table table;
  const auto a = table.intern({{"b", "2"}, {"a", "1"}});
  EXPECT_EQ(a, table.intern({{"a", "1"}, {"b", "2"}}));
  EXPECT_EQ(a->entries.front().first, "a");
  EXPECT_EQ(table.intern({}), table.empty());
  EXPECT_NE(a, table.intern({{"a", "1"}, {"b", "3"}}));
  EXPECT_EQ(*a->find("b"), "2");
  EXPECT_EQ(a->find("c"), nullptr);
}

TEST(pair_table, borders_between_names_and_values_matter) {
  pair_table table;
  EXPECT_NE(table.intern({{"ab", "c"}}), table.intern({{"a", "bc"}}));
  EXPECT_NE(table.intern({{"a", ""}, {"b", ""}}), table.intern({{"a", "b"}}));
}

TEST(pair_table, the_last_value_of_a_name_wins) {
  pair_table table;
  const auto a = table.intern({{"a", "1"}, {"b", "0"}, {"a", "2"}, {"a", "3"}});
  EXPECT_EQ(a->entries, (pairs{{"a", "3"}, {"b", "0"}}));
}

TEST(pair_table, with_and_without) {
  pair_table table;
  const auto none = table.empty();
  const auto b = table.with(none, "b", "1");
  const auto abc = table.with(table.with(b, "c", "2"), "a", "3");
  EXPECT_EQ(abc->entries, (pairs{{"a", "3"}, {"b", "1"}, {"c", "2"}}));
  EXPECT_EQ(table.with(abc, "b", "1"), abc);
  EXPECT_EQ(*table.with(abc, "b", "9")->find("b"), "9");
  EXPECT_EQ(table.without(table.without(abc, "a"), "c"), b);
  EXPECT_EQ(table.without(b, "x"), b);
  EXPECT_EQ(table.without(b, "b"), none);
}

TEST(pair_table, forgets_what_nobody_uses) {
  pair_table table;
  const auto kept = table.intern({{"kept", "1"}});
  for (int i = 0; i < 10'000; ++i) table.intern({{"n", std::to_string(i)}});
  EXPECT_LE(table.size(), 200U);
  EXPECT_EQ(table.intern({{"kept", "1"}}), kept);
}

TEST(difference, of_equal_sets_is_nothing) {
  const auto a = set_of({{"work_mem", "='1MB'"}, {"role", "=app"}});
  const auto b = set_of({{"work_mem", "='1MB'"}, {"role", "=app"}});
  EXPECT_EQ(difference(a, a), "");
  EXPECT_EQ(difference(a, b), "");
}

TEST(difference, takes_back_and_sets) {
  EXPECT_EQ(difference(set_of({{"a.b", "=1"}, {"work_mem", "='1MB'"}}),
                       set_of({{"search_path", "=x, \"Y\""}, {"work_mem", "='2MB'"}})),
            "RESET \"a\".\"b\";SET \"search_path\" TO x, \"Y\";SET \"work_mem\" TO '2MB';");
}

TEST(difference, strings_are_applied_by_set_config) {
  EXPECT_EQ(difference({}, set_of({{"search_path", ":a, \"b c\""}, {"datestyle", ":it's\\"}})),
            "SELECT pg_catalog.set_config('datestyle',E'it''s\\\\',false);"
            "SELECT pg_catalog.set_config('search_path','a, \"b c\"',false);");
}

TEST(difference, identity_is_set_last_and_taken_back_first) {
  EXPECT_EQ(difference({}, set_of({{"role", "=r"}, {"session_authorization", "='u'"}, {"zone",
      "=1"}})),
            "SET \"zone\" TO 1;SET SESSION AUTHORIZATION 'u';SET ROLE r;");
  EXPECT_EQ(difference(set_of({{"role", "=r"}, {"session_authorization", "=u"}, {"a", "=1"}}), {}),
            "RESET \"role\";RESET SESSION AUTHORIZATION;RESET \"a\";");
}

TEST(difference, a_role_that_stays_is_laid_down_while_others_change) {
  EXPECT_EQ(difference(set_of({{"role", "=r"}}), set_of({{"role", "=r"}, {"log_statement",
      "=none"}})),
            "RESET \"role\";SET \"log_statement\" TO none;SET ROLE r;");
}

TEST(difference, a_role_is_set_again_when_authorization_changes) {
  EXPECT_EQ(difference(set_of({{"role", "=r"}, {"session_authorization", "=u"}}), set_of({{"role",
      "=r"}})),
            "RESET \"role\";RESET SESSION AUTHORIZATION;SET ROLE r;");
  EXPECT_EQ(difference(set_of({{"role", "=r"}}), set_of({{"role", "=r"}, {"session_authorization",
      "=u"}})),
            "RESET \"role\";SET SESSION AUTHORIZATION u;SET ROLE r;");
}

TEST(full_application, resets_first) {
  EXPECT_EQ(full_application({}), "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
  EXPECT_EQ(full_application(set_of({{"role", "=r"}, {"a", "=1"}})),
            "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;SET \"a\" TO 1;SET ROLE r;");
}

TEST(quoting, literals_mean_the_same_whatever_standard_conforming_strings_is) {
  EXPECT_EQ(quote_literal(""), "''");
  EXPECT_EQ(quote_literal("it's"), "'it''s'");
  EXPECT_EQ(quote_literal("a\\b'c"), "E'a\\\\b''c'");
}

TEST(quoting, names) {
  EXPECT_EQ(quote_setting_name("work_mem"), "\"work_mem\"");
  EXPECT_EQ(quote_setting_name("app.user"), "\"app\".\"user\"");
  EXPECT_EQ(quote_setting_name("a\"b;c"), "\"a\"\"b;c\"");
}

pairs settings_of(const pairs& parameters, bool expected = true) {
  pairs into;
  EXPECT_EQ(startup_settings(parameters, into), expected);
  return into;
}

TEST(startup_settings, leaves_out_what_is_no_setting) {
  EXPECT_EQ(settings_of({{"user", "u"}, {"database", "d"}, {"replication", "off"}, {"_pq_.x", "1"},
                         {"DateStyle", "ISO"}, {"application_name", "x y"}}),
            (pairs{{"datestyle", ":ISO"}, {"application_name", ":x y"}}));
}

TEST(startup_settings, options_as_postgres_splits_them) {
  EXPECT_EQ(settings_of({{"options",
      " -c search_path=a,b  -cWork-Mem=1MB\t--geqo=off --statement-timeout=5s "}}),
            (pairs{{"search_path", ":a,b"}, {"work_mem", ":1MB"}, {"geqo", ":off"},
                {"statement_timeout", ":5s"}}));
  EXPECT_EQ(settings_of({{"options", "-c application_name=a\\ b\\\\c"}}),
      (pairs{{"application_name", ":a b\\c"}}));
  EXPECT_EQ(settings_of({{"options", "-c application_name=a=b\\"}}), (pairs{{"application_name",
      ":a=b"}}));
  EXPECT_EQ(settings_of({{"options", ""}}), pairs{});
  EXPECT_EQ(settings_of({{"options", "-c a="}}), (pairs{{"a", ":"}}));
}

TEST(startup_settings, malformed_options) {
  for (const auto* bad : {"-c", "-c name", "-c =x", "--name", "-x", "name=value", "-", "--"}) {
    SCOPED_TRACE(bad);
    settings_of({{"options", bad}}, false);
  }
}

TEST(startup_settings, a_parameter_wins_over_options_wherever_it_stands) {
  pair_table table;
  for (const bool first : {true, false}) {
    pairs sent{{"options", "-c TimeZone=UTC"}};
    sent.insert(first ? sent.begin() : sent.end(), {"TimeZone", "CET"});
    EXPECT_EQ(*table.intern(settings_of(sent))->find("timezone"), ":CET");
  }
}

}  // namespace
}  // namespace pgsled::session
