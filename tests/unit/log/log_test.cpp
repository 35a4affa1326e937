#include "common/log/log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/log/json_escape.hpp"

namespace pgsled::log {
namespace {

using testing::HasSubstr;

TEST(log, escapes_for_json) {
  EXPECT_EQ(json_escape("a\"b\\c\nd\x01"), "a\\\"b\\\\c\\nd\\u0001");
  EXPECT_EQ(json_escape("größe \xF0\x9F\x90\x98"), "größe \xF0\x9F\x90\x98");
  EXPECT_EQ(json_escape("\xFFx\xC0\xAF\xED\xA0\x80"),
            "\xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(log, a_text_line_carries_level_instance_and_component) {
  start("pooler", "pooler-1");
  configure("info", "text");
  testing::internal::CaptureStderr();
  info("pool", "opened {}\nforged", 3);
  debug("pool", "unseen");
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_THAT(out, HasSubstr("info  pooler-1 pool: opened 3\\nforged\n"));
  EXPECT_THAT(out, testing::Not(HasSubstr("unseen")));
}

TEST(log, json_lines_are_one_object_each) {
  start("pooler", "pooler-1");
  configure("debug", "json");
  testing::internal::CaptureStderr();
  debug("pool", "say \"{}\"", "hi");
  const std::string nested = testing::internal::GetCapturedStderr();
  EXPECT_THAT(nested, HasSubstr(R"("fields":{"message":"say \"hi\""})"));
  EXPECT_THAT(nested, HasSubstr(R"("instance":"pooler-1")"));
  configure("", "json_flattened");
  testing::internal::CaptureStderr();
  warn("pool", "flat");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr(R"("level":"warn","message":"flat")"));
  configure("info", "text");
}

TEST(log, lines_of_many_threads_do_not_mix) {
  configure("info", "text");
  testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) info("test", "abcdefghij");
    });
  for (auto& t : threads) t.join();
  const std::string out = testing::internal::GetCapturedStderr();
  std::size_t lines = 0, whole = 0, at = 0;
  for (std::size_t end; (end = out.find('\n', at)) != std::string::npos; at = end + 1) {
    ++lines;
    whole += out.substr(at, end - at).ends_with("test: abcdefghij");
  }
  EXPECT_EQ(lines, 800u);
  EXPECT_EQ(whole, 800u);
}

}  // namespace
}  // namespace pgsled::log
