#include "services/router/control/control.hpp"

#include <gtest/gtest.h>

#include "common/auth/scram.hpp"

namespace pgsled::router {
namespace {

config::database host(const std::string& name, std::uint32_t shard, std::uint16_t port) {
  config::database one;
  one.name = name;
  one.database_name = name;
  one.host = "127.0.0.1";
  one.port = port;
  one.shard = shard;
  return one;
}
config::user user(const std::string& name, std::vector<std::string> databases) {
  config::user one;
  one.name = name;
  one.databases = std::move(databases);
  one.passwords = {"secret"};
  return one;
}
config::configuration two_databases() {
  config::configuration made;
  made.databases = {host("plain", 0, 5432), host("wide", 0, 5501), host("wide", 1, 5502)};
  made.users = {user("ann", {"plain"}), user("bob", {})};
  made.users[1].all_databases = true;
  made.admin.password = "root";
  return made;
}

struct suite {
  control machine{1000, 0};
  std::int64_t now = 0;
  std::map<std::string, std::string> last;
  std::map<std::string, std::uint64_t> last_epoch;

  void hello(const std::string& service, const std::string& name,
             std::vector<std::string> databases = {}, std::uint64_t has_epoch = 0,
             std::vector<std::pair<std::uint32_t, std::uint32_t>> budgets = {}) {
    snapshot::hello said;
    said.service = service;
    said.instance = name;
    said.boot = "1";
    said.databases = std::move(databases);
    said.budgets = std::move(budgets);
    const std::string json = snapshot::to_json(said);
    const auto outcome = machine.hello(name, as_bytes(json), has_epoch, now);
    ASSERT_NE(outcome.what, membership::greeting::refused);
  }
  // Sends, and acknowledges when told so, until nothing changes. Number of envelopes sent.
  std::size_t settle(bool acknowledge = true) {
    std::size_t count = 0;
    while (machine.stale()) {
      for (auto& one : machine.refresh()) {
        ++count;
        last[one.to] = one.json;
        last_epoch[one.to] = one.epoch;
        if (acknowledge) machine.acknowledge(one.to, one.epoch);
      }
    }
    return count;
  }
  snapshot::frontend frontend(const std::string& name) {
    return *snapshot::from_json<snapshot::frontend>(last[name]);
  }
  snapshot::pooler pooler(const std::string& name) {
    return *snapshot::from_json<snapshot::pooler>(last[name]);
  }
};

TEST(control, users_are_expanded_and_secrets_go_where_they_are_needed) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("frontend", "f.0");
  s.hello("pooler", "p");
  s.settle();
  const auto f = s.frontend("f.0");
  ASSERT_EQ(f.users.size(), 4u) << "ann plain, bob plain, bob wide, admin";
  EXPECT_EQ(s.last["f.0"].find("secret"), std::string::npos);
  EXPECT_EQ(s.last["p"].find("SCRAM"), std::string::npos);
  EXPECT_EQ(f.users[1].verifiers, f.users[2].verifiers) << "one salt a user";
  EXPECT_NE(f.users[0].verifiers, f.users[1].verifiers);
  ASSERT_EQ(f.pools.size(), 4u);
  EXPECT_EQ(f.pools[3].targets.at(0).budget, 10u);
  EXPECT_TRUE(f.users[3].admin);
  EXPECT_EQ(f.users[3].database, "admin");
  EXPECT_TRUE(f.databases.back().admin);
  EXPECT_NE(f.holder, 0u);
  EXPECT_EQ(f.epoch, s.last_epoch["f.0"]);
  const auto p = s.pooler("p");
  ASSERT_EQ(p.pools.size(), 4u);
  EXPECT_EQ(p.pools[0].server_user, "ann");
  EXPECT_EQ(p.pools[0].server_password, "secret");
  EXPECT_EQ(p.pools[0].id, f.pools[0].id);
}

TEST(control, two_workers_get_different_numbers_and_the_same_rest) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("frontend", "f.0");
  s.hello("frontend", "f.1");
  s.settle();
  auto a = s.frontend("f.0"), b = s.frontend("f.1");
  EXPECT_NE(a.holder, b.holder);
  a.holder = b.holder;
  EXPECT_EQ(snapshot::to_json(a), snapshot::to_json(b));
}

TEST(control, only_those_whose_snapshot_changed_hear_of_it) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("frontend", "f.0");
  s.hello("pooler", "p");
  s.settle();
  const auto before = s.last_epoch;
  s.hello("frontend", "g.0");
  EXPECT_EQ(s.settle(), 1u);
  EXPECT_EQ(s.last_epoch["p"], before.at("p"));
  s.machine.set_state("wide", {{0, 1}, {}, 1});
  EXPECT_EQ(s.settle(), 2u) << "the frontends";
  EXPECT_EQ(s.frontend("f.0").databases[1].bucket_map, (std::vector<std::uint32_t>{0, 1}));
  s.machine.set_state("wide", {{0, 1}, {}, 1});
  EXPECT_FALSE(s.machine.stale());
  const auto epoch = s.machine.epoch();
  s.machine.configure(two_databases());
  EXPECT_EQ(s.settle(), 0u);
  EXPECT_EQ(s.machine.epoch(), epoch) << "verifiers are cached, nothing differs";
}

TEST(control, budgets_move_over_when_poolers_join_and_leave) {
  suite s;
  s.machine.configure(two_databases());
  s.now = 5000;
  s.machine.tick(s.now);
  s.hello("frontend", "f.0");
  s.hello("pooler", "a");
  s.settle();
  s.hello("pooler", "b");
  s.settle(false);
  EXPECT_EQ(s.pooler("a").pools[0].budget, 5u);
  EXPECT_EQ(s.pooler("b").pools[0].budget, 0u);
  EXPECT_EQ(s.frontend("f.0").pools[0].targets.size(), 1u);
  s.machine.acknowledge("a", s.last_epoch["a"]);
  s.settle();
  EXPECT_EQ(s.pooler("b").pools[0].budget, 5u);
  EXPECT_EQ(s.frontend("f.0").pools[0].targets.size(), 2u);
  for (int i = 0; i < 6; ++i) {
    s.machine.tick(s.now += 500);
    s.machine.heard("a", s.now);
    s.machine.heard("f.0", s.now);
  }
  s.settle();
  EXPECT_EQ(s.pooler("a").pools[0].budget, 10u) << "b is silent";
  EXPECT_EQ(s.frontend("f.0").poolers.size(), 1u);
  s.machine.bye("a");
  s.settle();
  EXPECT_EQ(s.frontend("f.0").pools[0].targets.size(), 0u);
  EXPECT_EQ(s.frontend("f.0").poolers.size(), 1u) << "its leases can still be given back";
}

TEST(control, a_successor_says_nothing_until_the_others_had_time_to_come) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("frontend", "f.0", {}, 900);
  s.settle();
  EXPECT_TRUE(s.last.empty()) << "f.0 would drop the poolers that it uses";
  s.now = 1000;
  s.hello("pooler", "a", {}, 900);
  s.hello("pooler", "b", {}, 900);
  s.settle();
  EXPECT_TRUE(s.last.empty());
  EXPECT_TRUE(s.machine.untold());
  s.now = succession_ms;
  s.machine.tick(s.now);
  s.settle();
  EXPECT_EQ(s.pooler("a").pools[0].budget, 5u);
  EXPECT_EQ(s.pooler("b").pools[0].budget, 5u);
  EXPECT_EQ(s.frontend("f.0").pools[0].targets.size(), 2u);
}

TEST(control, a_successor_adopts_what_poolers_hold) {
  suite before;
  before.machine.configure(two_databases());
  before.hello("pooler", "a");
  before.settle();
  const auto pool = before.pooler("a").pools[0].id;
  suite s;
  s.machine.configure(two_databases());
  s.hello("pooler", "a", {}, 900, {{pool, 5}});
  s.now = succession_ms;
  s.machine.tick(s.now);
  s.hello("pooler", "new");
  s.settle();
  EXPECT_EQ(s.pooler("a").pools[0].budget, 5u) << "another may hold the rest and be late";
  EXPECT_EQ(s.pooler("new").pools[0].budget, 0u);
  s.hello("pooler", "b", {}, 900, {{pool, 5}});
  s.settle();
  EXPECT_EQ(s.pooler("b").pools[0].budget, 3u);
  for (const char* each : {"a", "b", "new"}) s.machine.heard(each, silence_ms);
  s.machine.tick(silence_ms);
  s.settle();
  EXPECT_EQ(s.pooler("a").pools[0].budget + s.pooler("b").pools[0].budget +
                s.pooler("new").pools[0].budget,
            10u);
}

TEST(control, a_clock_that_was_set_back_does_not_make_it_unheard) {
  suite s;
  s.machine.configure(two_databases());
  const std::uint64_t ahead = s.machine.epoch() + 1'000'000;
  s.hello("frontend", "f.0", {}, ahead);
  s.now = succession_ms;
  s.machine.tick(s.now);
  s.settle();
  EXPECT_GT(s.frontend("f.0").epoch, ahead) << "it heeds no older one";
}

TEST(control, an_epoch_that_no_clock_gives_is_not_taken_over) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("frontend", "f.0", {}, ~std::uint64_t{0});
  EXPECT_LT(s.machine.epoch(), 1'000'000u);
}

TEST(control, a_router_that_was_stopped_blames_nobody_for_silence) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("pooler", "p");
  s.now = 100;
  s.machine.tick(s.now);
  s.now = 60'000;
  s.machine.tick(s.now);
  EXPECT_TRUE(s.machine.gone_since_last().empty());
  for (int i = 0; i < 40; ++i) s.machine.tick(s.now += 100);
  EXPECT_EQ(s.machine.gone_since_last(), std::vector<std::string>{"p"});
}

TEST(control, a_pooler_of_some_databases_gets_only_their_pools) {
  suite s;
  s.machine.configure(two_databases());
  s.hello("pooler", "p", {"wide"});
  s.settle();
  const auto p = s.pooler("p");
  ASSERT_EQ(p.pools.size(), 2u);
  EXPECT_EQ(p.pools[0].database, "wide");
}

TEST(control, pool_ids_are_the_same_in_the_next_router) {
  suite a, b;
  a.machine.configure(two_databases());
  auto other = two_databases();
  std::swap(other.users[0], other.users[1]);
  b.machine.configure(other);
  std::set<std::uint32_t> first, second;
  for (const auto& pool : a.machine.topology().pools) first.insert(pool.server.id);
  for (const auto& pool : b.machine.topology().pools) second.insert(pool.server.id);
  EXPECT_EQ(first, second);
  EXPECT_EQ(first.size(), 4u);
}

TEST(control, server_credentials_and_overrides) {
  auto config = two_databases();
  config.users[0].server_user = "su";
  config.users[0].server_password = "sp";
  config.users[0].pool_size = 3;
  config.users[0].statement_timeout = 100;
  config.users[0].pooler_mode = "session";
  config.databases[0].pooler_mode = "statement";
  config.databases[0].lock_timeout = 7;
  config.databases[0].read_only = true;
  config.databases[1].user = "du";
  config.databases[1].password = "dp";
  control machine(1, 0);
  machine.configure(config);
  const auto& pools = machine.topology().pools;
  EXPECT_EQ(pools[0].server.server_user, "su");
  EXPECT_EQ(pools[0].server.server_password, "sp");
  EXPECT_EQ(pools[0].server.budget, 3u);
  EXPECT_EQ(pools[0].pooler_mode, "session");
  const std::vector<std::pair<std::string, std::string>> startup{
      {"statement_timeout", "100"}, {"lock_timeout", "7"}, {"default_transaction_read_only", "on"}};
  EXPECT_EQ(pools[0].server.startup, startup);
  config.users[0].lock_timeout = 8;
  machine.configure(config);
  EXPECT_EQ(machine.topology().pools[0].server.startup[1].second, "8") << "the user's goes first";
  EXPECT_EQ(pools[1].pooler_mode, "statement");
  EXPECT_EQ(pools[2].server.server_user, "du");
  EXPECT_EQ(pools[2].server.server_password, "dp");
}

TEST(control, password_hash_is_given_on_and_other_passwords_share_its_salt) {
  auto config = two_databases();
  const std::string hash = auth::format_verifier(auth::make_verifier("old", "0123456789abcdef"));
  config.users[0].password_hash = hash;
  suite s;
  s.machine.configure(config);
  s.hello("frontend", "f.0");
  s.settle();
  const auto f = s.frontend("f.0");
  ASSERT_EQ(f.users[0].verifiers.size(), 2u);
  EXPECT_EQ(f.users[0].verifiers[0], hash);
  EXPECT_EQ(auth::parse_verifier(f.users[0].verifiers[1])->salt, "0123456789abcdef");
}

TEST(control, an_admin_without_password_is_locked_out) {
  auto config = two_databases();
  config.admin.password.clear();
  config.general.auth_type = "trust";
  suite s;
  s.machine.configure(config);
  s.hello("frontend", "f.0");
  s.settle();
  EXPECT_EQ(s.frontend("f.0").users.back().auth, "scram");
  EXPECT_TRUE(s.frontend("f.0").users.back().verifiers.empty());
  EXPECT_EQ(s.frontend("f.0").users.front().auth, "trust");
}

TEST(control, replicas_get_no_pool_and_stand_for_no_shard) {
  auto config = two_databases();
  auto replica = host("plain", 0, 5433);
  replica.role = "replica";
  config.databases.insert(config.databases.begin(), replica);
  control machine(1, 0);
  machine.configure(config);
  ASSERT_EQ(machine.topology().pools.size(), 4u);
  EXPECT_EQ(machine.topology().pools[0].server.port, 5432);
}

TEST(control, management_goes_as_schema_admin_else_as_the_first_user) {
  auto config = two_databases();
  control machine(1, 0);
  machine.configure(config);
  EXPECT_EQ(shard_addresses(machine.topology(), "plain")[0].user, "ann");
  config.users[1].schema_admin = true;
  machine.configure(config);
  EXPECT_EQ(shard_addresses(machine.topology(), "plain")[0].user, "bob");
  EXPECT_EQ(shard_addresses(machine.topology(), "wide").size(), 2u);
  EXPECT_TRUE(shard_addresses(machine.topology(), "none").empty());
}

TEST(control, no_configuration_without_a_shard_that_owns_rows) {
  suite s;
  s.machine.configure(two_databases());
  database_state state;
  state.bucket_map = {0, 1, 0, 0};
  s.machine.set_state("wide", state);
  EXPECT_FALSE(s.machine.objection(two_databases()));
  auto fewer = two_databases();
  fewer.databases.pop_back();
  const auto why = s.machine.objection(fewer);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->message, "database \"wide\": shard 1 is not in the file any more, and owns 1 of 4 "
                          "buckets");
  EXPECT_EQ(why->hint, "Empty it first: pgsled reshard remove-shard 1");
  auto none = two_databases();
  none.databases.resize(1);
  EXPECT_FALSE(s.machine.objection(none)) << "it is not served any more";
  state.bucket_map = {0, 0};
  s.machine.set_state("wide", state);
  EXPECT_FALSE(s.machine.objection(fewer));
  state.moving = "j";
  s.machine.set_state("wide", state);
  EXPECT_EQ(s.machine.objection(fewer)->sqlstate, "55006");
  auto more = two_databases();
  more.databases.push_back(host("wide", 2, 5503));
  EXPECT_EQ(s.machine.objection(more)->sqlstate, "55006");
}

TEST(control, one_replicator_hears_of_a_joining_shard) {
  suite s;
  auto config = two_databases();
  config.resharding.automatic = true;
  config.sharded_tables.push_back({"wide", "", "t", "id"});
  s.machine.configure(config);
  s.hello("replicator", "r1");
  s.hello("replicator", "r2");
  database_state state;
  state.bucket_map = {0, 0};
  s.machine.set_state("wide", state);
  s.settle();
  const auto joining = [&](const char* name) {
    return snapshot::from_json<snapshot::replicator>(s.last[name])->joining;
  };
  ASSERT_EQ(joining("r1").size(), 1u);
  EXPECT_EQ(joining("r1")[0].first, "wide");
  EXPECT_TRUE(joining("r2").empty());
  const auto before = joining("r1")[0].second;
  s.machine.configure(config);
  s.settle();
  EXPECT_NE(joining("r1")[0].second, before) << "a RELOAD";
  state.moving = "j";
  s.machine.set_state("wide", state);
  s.settle();
  EXPECT_TRUE(joining("r1").empty()) << "somebody is at it";
  state.moving.clear();
  state.bucket_map = {0, 1};
  s.machine.set_state("wide", state);
  s.settle();
  EXPECT_TRUE(joining("r1").empty());
  config.resharding.automatic = false;
  state.bucket_map = {0, 0};
  s.machine.configure(config);
  s.machine.set_state("wide", state);
  s.settle();
  EXPECT_TRUE(joining("r1").empty());
}

}  // namespace
}  // namespace pgsled::router
