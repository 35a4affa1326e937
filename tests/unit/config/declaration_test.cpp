#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <random>
#include <set>

#include "common/config/schema.hpp"
#include "tests/unit/config/support.hpp"

namespace pgsled::config {
namespace {

using testing::contents;
using testing::source_root;

TEST(declaration, accepts_every_key_of_pgdog) {
  const auto folder = source_root() / "tests/unit/config";
  const auto out = parse(contents(folder / "every_key.pgdog.toml"), "pgdog.toml",
                         contents(folder / "every_key.users.toml"), "users.toml");
  EXPECT_EQ(format(out.mistakes), "");
  ASSERT_TRUE(out.config);
  std::size_t given = 0;
  for (const auto& value : out.config->values) {
    given += value.given && value.name.find('.') == std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(given, 108u);  // of PgDog's [general]
  EXPECT_GT(out.config->unacted.size(), 70u);
}

// What a table may not get wrong: names once, defaults that pass their own check.
TEST(declaration, is_consistent) {
  for (const auto sections : {pgdog_sections(), users_sections()}) {
    for (const auto& section : sections) {
      std::set<std::string_view> names;
      for (const auto& one : section.settings) {
        SCOPED_TRACE(std::string(section.name) + "." + std::string(one.name));
        EXPECT_TRUE(names.insert(one.name).second);
        EXPECT_FALSE(one.help.empty());
        EXPECT_TRUE(one.help.ends_with('.'));
        EXPECT_LE(one.min, one.max);
        if (!section.acted_on) {
          EXPECT_FALSE(one.acted_on);
        }
        if (one.type == value_type::choice) {
          const auto all = choices(one);
          EXPECT_GE(all.size(), 2u);
          if (!one.fallback.empty()) {
            EXPECT_THAT(all, ::testing::Contains(one.fallback));
          }
        }
        if (one.type == value_type::integer || one.type == value_type::duration) {
          if (one.fallback.empty() || one.fallback == "never") continue;
          std::int64_t value = -1;
          const auto* end = one.fallback.data() + one.fallback.size();
          EXPECT_EQ(std::from_chars(one.fallback.data(), end, value).ptr, end);
          EXPECT_GE(value, one.min);
          EXPECT_LE(value, one.max);
        }
      }
    }
  }
  EXPECT_EQ(general_settings().size(), 108u);
}

TEST(declaration, committed_documents_are_the_generated_ones) {
  const auto same = [](const char* path, const std::string& generated, const char* topic) {
    EXPECT_TRUE(contents(source_root() / path) == generated)
        << "make it anew: pgsled docs " << topic << " > " << path;
  };
  same("docs/configuration.md", markdown_reference(), "configuration");
  same("deploy/pgdog.example.toml", example_pgdog_toml(), "example-pgdog");
  same("deploy/users.example.toml", example_users_toml(), "example-users");
}

std::string without_comments(const std::string& text) {  // turns every `# key = value` live
  std::string live;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto line = text.substr(at, end - at);
    at = end + 1;
    const bool key = line.size() > 2 && line.starts_with("# ") && line[2] >= 'a' &&
                     line[2] <= 'z' && line.find(" = ") != std::string::npos &&
                     line.find(' ', 2) == line.find(" = ");
    const bool header = line.starts_with("# [");
    if (key || header) line.erase(0, 2);
    live += line + "\n";
  }
  return live;
}

TEST(declaration, examples_are_valid) {
  const auto plain = parse(example_pgdog_toml(), "p", example_users_toml(), "u");
  EXPECT_EQ(format(plain.mistakes), "");
  ASSERT_TRUE(plain.config);
  EXPECT_TRUE(plain.config->unacted.empty());
  ASSERT_EQ(plain.config->databases.size(), 1u);
  ASSERT_EQ(plain.config->users.size(), 1u);
  // With every comment taken away, what remains wrong is only what samples cannot know.
  const auto live = parse(without_comments(example_pgdog_toml()), "p",
                          without_comments(example_users_toml()), "u");
  EXPECT_THAT(format(live.mistakes), ::testing::Not(::testing::HasSubstr("unknown")));
  EXPECT_THAT(format(live.mistakes), ::testing::Not(::testing::HasSubstr("not TOML")));
  EXPECT_THAT(format(live.mistakes), ::testing::Not(::testing::HasSubstr("must be an integer")));
}

std::string random_toml(std::mt19937& random) {
  static const std::vector<std::string> parts = {
      "[", "]", "[[", "]]", "{", "}", "=", " = ", "\n", "\n", ".", ",", "\"", "'", "\"\"\"", "'''",
      "#", "\\u0000", "\\", "\xff", "\xef\xbb\xbf", "0x", "1_000", "-", "1e400", "inf", "nan",
      "9223372036854775807", "99999999999999999999", "1979-05-27T07:32:00Z", "24:61:00", "true",
      "general", "databases", "users", "sharded_tables", "mapping", "port", "name", "host",
      "database", "values", "shard", "\"x\"", "[general]\n", "[[databases]]\n", "[[users]]\n",
      "name = \"a\"\n", "port = 1\n", "\r\n", " ", "\t", "e", "+"};
  std::string text;
  const auto count = random() % 40;
  for (std::size_t i = 0; i < count; ++i) {
    if (random() % 20 == 0) {
      text += static_cast<char>(random() & 0xff);
    } else {
      text += parts[random() % parts.size()];
    }
  }
  return text;
}

TEST(declaration, random_text_never_throws) {
  const auto* given = std::getenv("PGSLED_TEST_SEED");
  const auto seed = given != nullptr ? std::stoul(given) : std::random_device()();
  SCOPED_TRACE("PGSLED_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  for (int round = 0; round < 3000; ++round) {
    const auto pgdog = random_toml(random), users = random_toml(random);
    EXPECT_NO_THROW({
      const auto out = parse(pgdog, "p", users, "u");
      EXPECT_EQ(out.config.has_value(), out.mistakes.empty());
    }) << pgdog
       << "\n----\n"
       << users;
  }
  // Valid files with one byte changed, one removed, or cut off.
  for (int round = 0; round < 3000; ++round) {
    auto text = testing::good_pgdog;
    const auto at = random() % text.size();
    if (round % 3 == 0) text[at] = static_cast<char>(random() & 0xff);
    if (round % 3 == 1) text.erase(at, 1);
    if (round % 3 == 2) text.resize(at);
    EXPECT_NO_THROW(testing::parse_both(text)) << text;
  }
}

}  // namespace
}  // namespace pgsled::config
