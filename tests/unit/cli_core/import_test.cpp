#include <gtest/gtest.h>

#include "common/config/config.hpp"
#include "services/cli/pgbouncer.hpp"
#include "services/cli/pgbouncer_files.hpp"

namespace pgsled::cli {
namespace {

imported made_of(std::string ini, std::string userlist = {}) {
  return import_pgbouncer({std::move(ini), "i", std::move(userlist), "u"});
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(import, what_is_not_said_is_as_pgbouncer_has_it) {
  const auto made = made_of("[databases]\na = host=h\n", "\"u\" \"p\"\n");
  EXPECT_TRUE(made.mistakes.empty());
  for (const char* line : {"pooler_mode = \"session\"", "default_pool_size = 20",
                           "min_pool_size = 0", "auth_type = \"md5\"", "port = 6432",
                           "checkout_timeout = 120000", "idle_timeout = 600000",
                           "server_lifetime = 3600000", "max_client_conn = 100",
                           "tls_verify = \"prefer\"", "host = \"127.0.0.1\""}) {
    EXPECT_TRUE(contains(made.pgdog, line)) << line << "\n" << made.pgdog;
  }
  EXPECT_TRUE(contains(made.users, "name = \"u\"\nall_databases = true\npassword = \"p\"\n"));
  ASSERT_EQ(made.notes.size(), 1u);   // that there is no Unix socket alone
}

TEST(import, times_are_seconds_there_and_zero_is_never) {
  const auto made = made_of("[pgbouncer]\nserver_idle_timeout = 0\nquery_timeout = 0\n"
                            "query_wait_timeout = 1.5\nSERVER_LIFETIME = 7\n"
                            "server_check_delay = 0\n");
  EXPECT_TRUE(contains(made.pgdog, "idle_timeout = 9223372036854775807\n"));
  EXPECT_FALSE(contains(made.pgdog, "query_timeout"));
  EXPECT_TRUE(contains(made.pgdog, "checkout_timeout = 1500\n"));
  EXPECT_TRUE(contains(made.pgdog, "server_lifetime = 7000\n"));
  EXPECT_TRUE(contains(made.pgdog, "healthcheck_interval = 0\n"));
  const auto once = made_of("[pgbouncer]\nlisten_addr = *\nserver_lifetime = 0\n");
  EXPECT_TRUE(contains(once.pgdog, "server_lifetime = 9223372036854775807\n"));
  EXPECT_TRUE(contains(once.notes.back(), ":3: server_lifetime: 0, a connection for each use"));
}

TEST(import, names_and_secrets_are_quoted_for_toml) {
  const auto made = made_of("[databases]\n\"a\"\"b\\\" = host=h password='it''s \"x\"'\n",
                            "\"q\"\"r\" \"s\\\tt\"\n");
  EXPECT_TRUE(contains(made.pgdog, "name = \"a\\\"b\\\\\"\n")) << made.pgdog;
  EXPECT_TRUE(contains(made.pgdog, "password = \"it's \\\"x\\\"\"\n")) << made.pgdog;
  EXPECT_TRUE(contains(made.users, "name = \"q\\\"r\"\n")) << made.users;
  EXPECT_TRUE(contains(made.users, "password = \"s\\\\\\u0009t\"\n")) << made.users;
}

TEST(import, hashes_are_no_passwords) {
  const auto made = made_of("", "\"m\" \"md50123456789abcdef0123456789abcdef\"\n"
                                "\"s\" \"SCRAM-SHA-256$4096:a$b:c\"\n\"e\" \"\"\n");
  EXPECT_FALSE(contains(made.users, "md5"));
  EXPECT_TRUE(contains(made.users, "password_hash = \"SCRAM-SHA-256$4096:a$b:c\"\n"));
  std::size_t about_users = 0;
  for (const auto& note : made.notes) about_users += note.starts_with("u:");
  EXPECT_EQ(about_users, 3u);
}

// Whatever is not carried over is named, with its line.
TEST(import, nothing_is_left_out_in_silence) {
  const auto made = made_of("[databases]\n* = host=h\na = host=x,y bogus=1\n[pgbouncer]\n"
                            "frobnicate = 1\nauth_type = ldap\nauth_query = SELECT\n"
                            "%include other.ini\n[other]\nkey = 1\n[users]\nghost = pool_size=1\n");
  EXPECT_TRUE(made.mistakes.empty());
  for (const char* start : {"i:2: *: ", "i:3: a: has several", "i:3: a: bogus", "i:5: frobnicate: ",
                            "i:6: auth_type: ldap", "i:7: auth_query: ", "i:8: %include: other.ini",
                            "i:10: key: section [other]", "i:12: ghost: "}) {
    EXPECT_TRUE(std::any_of(made.notes.begin(), made.notes.end(), [&](const auto& note) {
      return note.starts_with(start);
    })) << start;
  }
}

TEST(import, what_pgbouncer_would_refuse_is_a_mistake) {
  for (const char* bad : {"[databases", "[pgbouncer]\nlisten_port", "[pgbouncer]\nlisten_port = x",
                          "[pgbouncer]\npool_mode = perhaps", "[pgbouncer]\nquery_timeout = soon",
                          "[pgbouncer]\nquery_timeout = -1", "[pgbouncer]\nquery_timeout = nan",
                          "[databases]\na = host", "[databases]\na = host='x",
                          "[databases]\n\"a = host=x", "[databases]\na = port=x host=y"}) {
    EXPECT_EQ(made_of(bad).mistakes.size(), 1u) << bad;
  }
  EXPECT_EQ(made_of("", "\"a\" b\n\"c\n").mistakes.size(), 2u);
}

// Cut off anywhere, or with any byte changed, it is read without harm.
TEST(import, damaged_files_are_survived) {
  const std::string ini = "[databases]\n\"a\" = host='h''' port=1\n[pgbouncer]\nlisten_addr = *\n"
                          "admin_users = a, b\ntcp_keepidle = 3\n";
  const std::string users = "\"a\" \"b\"\"\"\n";
  for (std::size_t at = 0; at <= ini.size(); ++at) {
    made_of(ini.substr(0, at), users.substr(0, std::min(at, users.size())));
    for (const char c : {'"', '\'', '=', '[', '\n', '\0', '\xff'}) {
      auto changed = ini;
      if (at < ini.size()) changed[at] = c;
      made_of(changed, users);
    }
  }
}

}  // namespace
}  // namespace pgsled::cli
