#include "common/snapshot/snapshot.hpp"

#include <gtest/gtest.h>

namespace pgsled::snapshot {
namespace {

TEST(snapshot, frontend_survives_the_round_trip) {
  frontend from;
  from.epoch = 1'700'000'000'123u;
  from.version = "0.1.0";
  from.holder = 17;
  from.settings.port = 6543;
  from.settings.query_size_limit = -1;
  from.settings.statement_cache_bytes = 5ull << 30;
  from.settings.prepared_statements_per_connection = 77;
  from.users.emplace_back();
  from.users.back().name = "ann \"q\" \n";
  from.users.back().verifiers = {"SCRAM-SHA-256$4096:c2FsdA==$a:b", "second"};
  from.databases.emplace_back();
  from.databases.back().bucket_map = {0, 1, 2, 0};
  from.databases.back().mappings = {
      {12345678901234567890u, "varchar", {{"ä", 2}}, {{"a", "", true, false, 1}}, -1}};
  from.pools.emplace_back();
  from.pools.back().host = "::1";
  from.pools.back().targets = {{"pooler-0", 4}, {"pooler-1", 3}};
  from.poolers.push_back({"pooler-0", "h", "/run/p.lease", "tcp://127.0.0.1:1", "key"});

  const auto to = from_json<frontend>(to_json(from));
  ASSERT_TRUE(to.has_value()) << to.error().message;
  EXPECT_EQ(to_json(*to), to_json(from));
  EXPECT_EQ(to->epoch, from.epoch);
  EXPECT_EQ(to->settings.statement_cache_bytes, 5ull << 30);
  EXPECT_EQ(to->settings.prepared_statements_per_connection, 77u);
  EXPECT_EQ(to->users[0].name, from.users[0].name);
  EXPECT_EQ(to->users[0].verifiers, from.users[0].verifiers);
  EXPECT_EQ(to->databases[0].bucket_map, from.databases[0].bucket_map);
  ASSERT_EQ(to->databases[0].mappings.size(), 1u);
  const auto& mapping = to->databases[0].mappings[0];
  EXPECT_EQ(mapping.id, 12345678901234567890u);
  EXPECT_EQ(mapping.type, "varchar");
  EXPECT_EQ(mapping.list, from.databases[0].mappings[0].list);
  ASSERT_EQ(mapping.ranges.size(), 1u);
  EXPECT_TRUE(mapping.ranges[0].has_start && !mapping.ranges[0].has_end);
  EXPECT_EQ(mapping.fallback, -1);
  EXPECT_EQ(to->pools[0].targets[1].budget, 3u);
  EXPECT_EQ(to->poolers[0].relay_key, "key");
}

TEST(snapshot, pooler_keeps_order_of_startup_parameters) {
  pooler from;
  from.pools.emplace_back();
  from.pools[0].server_password = "secret";
  from.pools[0].startup = {{"statement_timeout", "100"}, {"lock_timeout", "5"}};
  const auto to = from_json<pooler>(to_json(from));
  ASSERT_TRUE(to.has_value());
  EXPECT_EQ(to->pools[0].startup, from.pools[0].startup);
  EXPECT_EQ(to->pools[0].server_password, "secret");
}

TEST(snapshot, missing_keys_keep_defaults_and_unknown_ones_are_skipped) {
  const auto to =
      from_json<frontend>(R"({"epoch": 5, "later": {"x": [1]}, "settings": {"port": 1}})");
  ASSERT_TRUE(to.has_value());
  EXPECT_EQ(to->epoch, 5u);
  EXPECT_EQ(to->settings.port, 1);
  EXPECT_EQ(to->settings.checkout_timeout, 5000);
}

TEST(snapshot, wrong_kinds_are_refused_with_the_path) {
  const auto refused = [](std::string_view text) {
    const auto to = from_json<frontend>(text);
    return to.has_value() ? std::string("accepted") : to.error().message;
  };
  EXPECT_NE(refused("{").find("not JSON"), std::string::npos);
  EXPECT_NE(refused("[]").find("object"), std::string::npos);
  EXPECT_NE(refused(R"({"settings": {"port": 70000}})").find("settings.port"), std::string::npos);
  EXPECT_NE(refused(R"({"settings": {"port": -1}})").find("settings.port"), std::string::npos);
  EXPECT_NE(refused(R"({"settings": {"port": 1.5}})").find("settings.port"), std::string::npos);
  EXPECT_NE(refused(R"({"users": [{"name": 1}]})").find("users.name"), std::string::npos);
  EXPECT_NE(refused(R"({"users": {}})").find("users"), std::string::npos);
  EXPECT_FALSE(from_json<pooler>(R"({"pools":[{"startup":[["a"]]}]})").has_value());
}

TEST(snapshot, deep_nesting_is_refused_rather_than_followed) {
  EXPECT_FALSE(from_json<hello>(std::string(100'000, '[')).has_value());
}

TEST(snapshot, hello_round_trip) {
  hello from;
  from.service = "pooler";
  from.pid = 77;
  from.databases = {"a", "b"};
  const auto to = from_json<hello>(to_json(from));
  ASSERT_TRUE(to.has_value());
  EXPECT_EQ(to->databases, from.databases);
  EXPECT_EQ(to->pid, 77);
}

}  // namespace
}  // namespace pgsled::snapshot
