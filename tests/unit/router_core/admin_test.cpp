#include <gtest/gtest.h>

#include "services/router/admin/gatherer.hpp"
#include "services/router/admin/sql.hpp"
#include "services/router/admin/table.hpp"
#include "services/router/admin/views.hpp"
#include "services/router/metrics/metrics_merge.hpp"
#include "services/router/metrics/pgdog_metrics.hpp"

namespace pgsled::router {
namespace {

using verb = admin_statement::command;

TEST(admin_sql, commands_and_views) {
  const auto pools = read_admin_statement(" show /* x */ POOLS database , \"cl_waiting\" ; -- x");
  ASSERT_TRUE(pools.has_value()) << pools.error().message;
  EXPECT_EQ(pools->what, "pools");
  EXPECT_EQ(pools->columns, (std::vector<std::string>{"database", "cl_waiting"}));
  EXPECT_EQ(read_admin_statement("reload")->verb, verb::reload);
  EXPECT_EQ(read_admin_statement("SHUTDOWN;")->tag, "SHUTDOWN");
  EXPECT_EQ(read_admin_statement("help")->what, "help");
  EXPECT_EQ(read_admin_statement("SELECT 1")->verb, verb::select_one);
  EXPECT_EQ(read_admin_statement("")->verb, verb::quiet);
  EXPECT_EQ(read_admin_statement("BEGIN")->tag, "BEGIN");
  EXPECT_EQ(read_admin_statement("SET extra_float_digits = 3")->tag, "SET");
}

TEST(admin_sql, what_is_refused) {
  const auto code = [](std::string_view sql) {
    const auto got = read_admin_statement(sql);
    return got ? std::string("accepted") : got.error().sqlstate;
  };
  EXPECT_EQ(code("SHOW"), "42601");
  EXPECT_EQ(code("SHOW POOLS a b"), "42601");
  EXPECT_EQ(code("SHOW POOLS; RELOAD"), "42601");
  EXPECT_EQ(code("SHOW 'pools"), "42601");
  EXPECT_EQ(code("/* SHOW"), "42601");
  EXPECT_EQ(code("RELOAD now"), "42601");
  EXPECT_EQ(code("PAUSE"), "0A000");
  EXPECT_EQ(code("SET default_pool_size TO 3"), "0A000");
  EXPECT_EQ(code("SELECT 2"), "42601");
  EXPECT_EQ(code(std::string(100'000, 'a') + " b"), "42601");
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "x ";
  EXPECT_EQ(code(many), "42601");
}

TEST(admin_sql, moves_of_rows) {
  const auto add = read_admin_statement("RESHARD ADD SHARD \"Shop\"");
  ASSERT_TRUE(add.has_value());
  EXPECT_EQ(add->verb, verb::reshard);
  EXPECT_EQ(add->what, "add-shard");
  EXPECT_EQ(add->database, "Shop");
  EXPECT_EQ(add->shard, "");
  EXPECT_EQ(read_admin_statement("reshard add shard shop 3")->shard, "3");
  const auto remove = read_admin_statement("reshard remove shard shop 12");
  EXPECT_EQ(remove->what, "remove-shard");
  EXPECT_EQ(remove->shard, "12");
  EXPECT_EQ(read_admin_statement("RESHARD REBALANCE shop")->database, "shop");
  EXPECT_EQ(read_admin_statement("STOP_TASK 00ff")->what, "00ff");
  for (const char* sql : {"RESHARD remove shard shop", "RESHARD remove shard shop x",
                          "RESHARD add shard", "RESHARD", "COPY_DATA a b", "RESHARD a b p s x"}) {
    const auto no = read_admin_statement(sql);
    ASSERT_FALSE(no.has_value()) << sql;
    EXPECT_EQ(no.error().sqlstate, "42601");
    EXPECT_NE(no.error().hint.find("RESHARD ADD SHARD"), std::string::npos);
  }
  for (const char* sql : {"SCHEMA_SYNC pre a b", "SCHEMA_SYNC a b p", "SCHEMA_SYNC",
                          "REPLICATE a b", "REPLICATE a b p s x"}) {
    const auto no = read_admin_statement(sql);
    ASSERT_FALSE(no.has_value()) << sql;
    EXPECT_EQ(no.error().sqlstate, "42601");
  }
  EXPECT_EQ(read_admin_statement("STOP_TASK").error().sqlstate, "42601");
}

TEST(admin_sql, moves_to_other_servers) {
  const auto all = read_admin_statement("RESHARD Shop \"Shop_New\" publication slot");
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(all->verb, verb::reshard);
  EXPECT_EQ(all->what, "new-cluster");
  EXPECT_EQ(all->database, "shop");
  EXPECT_EQ(all->to, "Shop_New");
  EXPECT_EQ(all->cutover, "automatic");
  EXPECT_EQ(read_admin_statement("COPY_DATA a b p")->cutover, "wait");
  EXPECT_EQ(read_admin_statement("COPY_DATA a b p")->tag, "COPY_DATA");
  const auto schema = read_admin_statement("SCHEMA_SYNC PRE a \"B\" p s");
  EXPECT_EQ(schema->verb, verb::reshard);
  EXPECT_EQ(schema->what, "schema-sync");
  EXPECT_EQ(schema->database, "a");
  EXPECT_EQ(schema->to, "B");
  EXPECT_EQ(schema->tag, "SCHEMA_SYNC");
  for (const char* sql : {"SCHEMA_SYNC post a b p", "schema_sync cutover a b p",
                          "REPLICATE a b p slot"}) {
    const auto task = read_admin_statement(sql);
    ASSERT_TRUE(task.has_value()) << sql;
    EXPECT_EQ(task->verb, verb::follow);
    EXPECT_EQ(task->database, "a");
    EXPECT_EQ(task->to, "b");
  }
  EXPECT_EQ(read_admin_statement("CUTOVER")->verb, verb::cutover);
  EXPECT_EQ(read_admin_statement("CUTOVER 00ff")->what, "00ff");
  EXPECT_EQ(read_admin_statement("CUTOVER 1 2").error().sqlstate, "42601");
}

TEST(admin_table, json_and_columns) {
  admin_table made;
  made.column("a");
  made.column("b", column_type::number);
  made.rows.push_back({"x\"y", std::nullopt});
  made.notice = "n";
  EXPECT_EQ(to_json(made), R"({"columns":[{"name":"a","type":25},{"name":"b","type":20}],)"
                           R"("rows":[["x\"y",null]],"tag":"SHOW","notice":"n"})");
  EXPECT_EQ(only_columns(made, {"b"})->rows[0].size(), 1u);
  EXPECT_EQ(only_columns(made, {"c"}).error().sqlstate, "42703");
}

TEST(admin_views, show_config_names_every_setting_once) {
  config::configuration given;
  given.values = {{"port", "6432", true, true},
                  {"ban_timeout", "1234", false, true},
                  {"databases.role = \"replica\"", "given at pgdog.toml:9", false, true}};
  given.unacted = {"pgdog.toml:3: ban_timeout", "pgdog.toml:9: databases.role = \"replica\"",
                   "pgdog.toml:12: users.server_auth (and 2 more)"};
  const auto shown = show_config(given);
  ASSERT_EQ(shown.rows.size(), 3u);
  EXPECT_EQ(shown.rows[1][0], "ban_timeout");
  EXPECT_EQ(shown.rows[1][1], "1234");
}

TEST(admin_table, rows_of_any_shape_are_read_or_counted_missing) {
  gathered got;
  got.answers = {{"a", R"({"rows":[{"n":5,"t":"x","b":true,"z":null,"d":1.5}],"more":1})"},
                 {"b", "rubbish"},
                 {"c", R"({"rows":[5]})"},
                 {"d", "{}"}};
  const auto rows = read_rows(got);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].number("n"), 5u);
  EXPECT_EQ(rows[0].text("b"), "t");
  EXPECT_EQ(rows[0].number("t"), 0u);
  EXPECT_EQ(got.missing, (std::vector<std::string>{"b", "c"}));
}

TEST(gatherer, done_once_with_answers_and_with_who_is_missing) {
  std::vector<std::pair<std::string, std::uint64_t>> sent;
  gatherer desk([&](const std::string& to, std::uint64_t request, const std::string&) {
    sent.emplace_back(to, request);
    return to != "full";
  });
  int calls = 0;
  gathered last;
  const auto done = [&](gathered got) { ++calls; last = std::move(got); };
  ASSERT_TRUE(desk.ask({"a", "b", "c", "full"}, "{}", 500, done));
  const auto request = sent[0].second;
  desk.answer("a", request, "A");
  desk.answer("a", request, "again");
  desk.answer("stranger", request, "S");
  desk.failed("b", request);
  EXPECT_EQ(calls, 0);
  desk.tick(499);
  EXPECT_EQ(calls, 0);
  desk.tick(500);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(last.answers.size(), 1u);
  EXPECT_EQ(last.missing, (std::vector<std::string>{"full", "b", "c"}));
  desk.answer("c", request, "late");
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(desk.ask({"a", "b"}, "{}", 900, done));
  desk.lost("a");
  desk.lost("b");
  EXPECT_EQ(calls, 2);
  ASSERT_TRUE(desk.ask({}, "{}", 900, done));
  EXPECT_EQ(calls, 3);
}

TEST(gatherer, is_bounded) {
  gatherer desk([](const auto&, auto, const auto&) { return true; });
  for (std::size_t i = 0; i < gatherer::max_open; ++i) {
    EXPECT_TRUE(desk.ask({"a"}, "{}", 500, [](gathered) {}));
  }
  EXPECT_FALSE(desk.ask({"a"}, "{}", 500, [](gathered) {}));
  desk.tick(500);
  EXPECT_EQ(desk.open(), 0u);
}

TEST(metrics_merge, families_once_and_labels_added) {
  const std::string a = "# HELP x_total X.\n# TYPE x_total counter\nx_total 1\n"
                        "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 3\nh_count 2\n";
  const std::string b = "# HELP x_total X.\n# TYPE x_total counter\nx_total{q=\"}\"} 4\nlone 9\n";
  EXPECT_EQ(merge_metrics({{"frontend", "f", a}, {"pooler", "p", b}}, "", false),
            "# HELP x_total X.\n# TYPE x_total counter\n"
            "x_total{service=\"frontend\",instance=\"f\"} 1\n"
            "x_total{service=\"pooler\",instance=\"p\",q=\"}\"} 4\n"
            "# TYPE h histogram\n"
            "h_bucket{service=\"frontend\",instance=\"f\",le=\"1\"} 2\n"
            "h_sum{service=\"frontend\",instance=\"f\"} 3\n"
            "h_count{service=\"frontend\",instance=\"f\"} 2\n"
            "lone{service=\"pooler\",instance=\"p\"} 9\n");
}

TEST(metrics_merge, more_families_and_end_of_file) {
  EXPECT_EQ(merge_metrics({{"r", "i", "# TYPE a gauge\na 1\n# EOF\n"}}, "b 2\n", true),
            "# TYPE a gauge\na{service=\"r\",instance=\"i\"} 1\nb 2\n# EOF\n");
  EXPECT_EQ(merge_metrics({{"r", "i", "\n#\n#x\n{\n \n"}}, "", false), "");
}

pgdog_tables pgdog_example() {
  pgdog_tables tables;
  for (const char* name : {"user", "database", "addr", "port", "shard", "role", "cl_waiting",
                           "maxwait", "maxwait_us"}) {
    tables.pools.column(name);
  }
  tables.pools.rows.push_back({"a\"b\\", "d\nb", "h", "5432", "0", "primary", "7", "2", "500000"});
  tables.stats.column("total_query_time");
  tables.stats.rows.push_back({"1500"});
  return tables;
}

TEST(pgdog_metrics, names_labels_and_units) {
  const auto text = pgdog_metrics(pgdog_example(), "pgdog", false, 10'000);
  const std::string labels = "{user=\"a\\\"b\\\\\",database=\"d\\nb\",host=\"h\",port=\"5432\","
                             "shard=\"0\",role=\"primary\"}";
  EXPECT_NE(text.find("# TYPE pgdog_cl_waiting gauge\npgdog_cl_waiting" + labels + " 7\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("pgdog_maxwait" + labels + " 2.5\n"), std::string::npos) << text;
  EXPECT_NE(text.find("# TYPE pgdog_total_query_time counter\npgdog_total_query_time 1.5\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("pgdog_clients"), std::string::npos) << "a table without the column";
}

TEST(pgdog_metrics, openmetrics_knows_no_counter_of_such_a_name) {
  const auto text = pgdog_metrics(pgdog_example(), "", true, 10'000);
  EXPECT_NE(text.find("# TYPE total_query_time unknown\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("counter"), std::string::npos) << text;
}

TEST(pgdog_metrics, whole_families_up_to_the_limit) {
  const auto all = pgdog_metrics(pgdog_example(), "", false, 10'000);
  const auto cut = pgdog_metrics(pgdog_example(), "", false, all.size() - 1);
  EXPECT_LT(cut.size(), all.size());
  EXPECT_EQ(all.substr(0, cut.size()), cut);
  EXPECT_TRUE(cut.empty() || cut.back() == '\n');
  EXPECT_EQ(pgdog_metrics(pgdog_example(), "", false, 0), "");
}

TEST(pgdog_metrics, every_column_is_one_of_show) {
  const auto has = [](const admin_table& in, std::string_view name) {
    return std::any_of(in.columns.begin(), in.columns.end(),
                       [&](const auto& one) { return one.first == name; });
  };
  const control truth(1, 0);
  const admin_table tables[] = {show_lists(truth, {}), show_pools(truth, {}),
                                show_stats(truth, {}, {})};
  for (const auto& one : declared_pgdog_metrics()) {
    EXPECT_TRUE(has(tables[static_cast<std::size_t>(one.from)], one.column)) << one.what.name;
  }
}

TEST(metrics_merge, workers_stand_for_their_process) {
  EXPECT_EQ(process_instance("frontend", "frontend-1.0"), "frontend-1");
  EXPECT_EQ(process_instance("frontend", "frontend-1.x"), "frontend-1.x");
  EXPECT_EQ(process_instance("pooler", "pooler-1.0"), "pooler-1.0");
}

}  // namespace
}  // namespace pgsled::router
