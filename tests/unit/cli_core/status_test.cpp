#include "services/cli/status.hpp"

#include <gtest/gtest.h>

namespace pgsled::cli {
namespace {

constexpr auto answer = R"({"columns":[{"name":"service","type":"text"},
  {"name":"pid","type":"int8"},{"name":"state","type":"text"}],"rows":[["router",12,"ready"],["frontend","345",null]],
  "tag":"SHOW"})";

TEST(status, table) {
  EXPECT_EQ(*render_table(answer),
            "service   pid  state\n"
            "router    12   ready\n"
            "frontend  345\n");
}

TEST(status, json) {
  EXPECT_EQ(*render_json(answer, "ipc://x"),
            R"({"router":"ipc://x","processes":[{"service":"router","pid":12,"state":"ready"},)"
            R"({"service":"frontend","pid":"345","state":null}]})"
            "\n");
}

TEST(status, refuses_other_forms) {
  for (const auto* text : {"", "[]", "{", "{}", R"({"columns":[],"rows":1})",
                           R"({"columns":[{"name":1}],"rows":[]})",
                           R"({"columns":[{"name":"a"}],"rows":[[1,2]]})",
                           R"({"columns":[{"name":"a"}],"rows":[1]})"}) {
    EXPECT_EQ(render_table(text).error().sqlstate, "08P01") << text;
    EXPECT_EQ(render_json(text, "e").error().sqlstate, "08P01") << text;
  }
}

TEST(status, no_router_is_an_error_at_once) {
  status_options options;
  options.router = "ipc:///nonexistent/router.bus";
  EXPECT_EQ(status(options), 1);
  options.router = "http://nonsense";
  EXPECT_EQ(status(options), 1);
}

}  // namespace
}  // namespace pgsled::cli
