#include "common/config/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/schema.hpp"
#include "tests/unit/config/support.hpp"

namespace pgsled::config {
namespace {

using testing::good_pgdog;
using testing::good_users;
using testing::mistakes_of;
using testing::parse_both;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(config, good_files) {
  const auto out = parse_both(good_pgdog);
  ASSERT_TRUE(out.config) << format(out.mistakes);
  EXPECT_THAT(out.mistakes, IsEmpty());
  const auto& config = *out.config;
  EXPECT_EQ(config.general.port, 7000);
  EXPECT_EQ(config.general.query_timeout, never);
  ASSERT_EQ(config.databases.size(), 2u);
  EXPECT_EQ(config.databases[0].database_name, "app");
  EXPECT_EQ(config.databases[1].database_name, "app_1");
  EXPECT_EQ(config.databases[1].shard, 1u);
  EXPECT_EQ(config.databases[1].port, 5432);
  EXPECT_EQ(config.databases[1].pool_size, std::nullopt);
  ASSERT_EQ(config.users.size(), 1u);
  EXPECT_THAT(config.users[0].passwords, ElementsAre("one", "two"));
  EXPECT_THAT(config.users[0].databases, ElementsAre("app"));
  ASSERT_EQ(config.sharded_tables.size(), 1u);
  EXPECT_TRUE(config.sharded_tables[0].acted_on);
  EXPECT_EQ(config.admin.password, "secret");
  EXPECT_THAT(config.unacted, IsEmpty());
}

TEST(config, declared_defaults_are_those_of_the_structs) {
  const auto out = parse_both("", "");
  ASSERT_TRUE(out.config) << format(out.mistakes);
  const general declared = out.config->general, written;
  EXPECT_EQ(declared.host, written.host);
  EXPECT_EQ(declared.port, written.port);
  EXPECT_EQ(declared.workers, written.workers);
  EXPECT_EQ(declared.openmetrics_host, written.openmetrics_host);
  EXPECT_EQ(declared.openmetrics_port, written.openmetrics_port);
  EXPECT_EQ(declared.shutdown_timeout, written.shutdown_timeout);
  EXPECT_EQ(declared.default_pool_size, written.default_pool_size);
  EXPECT_EQ(declared.min_pool_size, written.min_pool_size);
  EXPECT_EQ(declared.pooler_mode, written.pooler_mode);
  EXPECT_EQ(declared.checkout_timeout, written.checkout_timeout);
  EXPECT_EQ(declared.connect_timeout, written.connect_timeout);
  EXPECT_EQ(declared.connect_attempts, written.connect_attempts);
  EXPECT_EQ(declared.connect_attempt_delay, written.connect_attempt_delay);
  EXPECT_EQ(declared.idle_timeout, written.idle_timeout);
  EXPECT_EQ(declared.resharding_copy_format, written.resharding_copy_format);
  EXPECT_EQ(declared.resharding_parallel_copies, written.resharding_parallel_copies);
  EXPECT_EQ(declared.pg_dump_path, written.pg_dump_path);
  EXPECT_EQ(declared.server_lifetime, written.server_lifetime);
  EXPECT_EQ(declared.server_lifetime_jitter, written.server_lifetime_jitter);
  EXPECT_EQ(declared.rollback_timeout, written.rollback_timeout);
  EXPECT_EQ(declared.query_timeout, written.query_timeout);
  EXPECT_EQ(declared.client_login_timeout, written.client_login_timeout);
  EXPECT_EQ(declared.client_idle_timeout, written.client_idle_timeout);
  EXPECT_EQ(declared.client_idle_in_transaction_timeout,
            written.client_idle_in_transaction_timeout);
  EXPECT_EQ(declared.query_size_limit, written.query_size_limit);
  EXPECT_EQ(declared.healthcheck_interval, written.healthcheck_interval);
  EXPECT_EQ(declared.healthcheck_timeout, written.healthcheck_timeout);
  EXPECT_EQ(declared.auth_type, written.auth_type);
  EXPECT_EQ(declared.tls_verify, written.tls_verify);
  EXPECT_EQ(declared.tls_client_required, written.tls_client_required);
  EXPECT_EQ(declared.log_connections, written.log_connections);
  EXPECT_EQ(declared.log_disconnections, written.log_disconnections);
  EXPECT_EQ(declared.log_level, written.log_level);
  EXPECT_EQ(declared.log_format, written.log_format);
  const pgsled own = out.config->pgsled, plain;
  EXPECT_EQ(own.dispatch, plain.dispatch);
  EXPECT_EQ(own.lane, plain.lane);
  EXPECT_EQ(own.max_client_conn, plain.max_client_conn);
  EXPECT_EQ(own.plan_cache_bytes, plain.plan_cache_bytes);
  EXPECT_EQ(own.statement_cache_bytes, plain.statement_cache_bytes);
  EXPECT_EQ(own.prepared_statements_per_connection, plain.prepared_statements_per_connection);
  EXPECT_EQ(own.recall_deadline, plain.recall_deadline);
  EXPECT_EQ(out.config->admin.name, admin().name);
  EXPECT_EQ(out.config->tcp.keepalive, tcp().keepalive);
}

TEST(config, unknown_keys_and_sections) {
  EXPECT_EQ(mistakes_of(good_pgdog + "\n[general2]\n"),
            "pgdog.toml:19: general2: unknown section; nearest known: general\n");
  EXPECT_EQ(mistakes_of("[general]\nprot = 1\n", ""),
            "pgdog.toml:2: general.prot: unknown key; nearest known: port\n");
  EXPECT_EQ(mistakes_of("[general]\nkeepalive = true\n", ""),
            "pgdog.toml:2: general.keepalive: unknown key; it belongs to [tcp]\n");
  EXPECT_EQ(mistakes_of("port = 6432\n", ""),
            "pgdog.toml:1: port: unknown at the top of the file; it belongs to [general]\n");
  EXPECT_THAT(mistakes_of("[memory]\nxyz_unlike_anything = 1\n", ""), HasSubstr("known: net_buf"));
  EXPECT_EQ(mistakes_of("[[general]]\n", ""),
            "pgdog.toml:1: general: must be one table: [general]\n");
  EXPECT_EQ(mistakes_of("[databases]\nname = \"a\"\n", ""),
            "pgdog.toml:1: databases: must be a list of tables: [[databases]]\n");
}

TEST(config, types_ranges_and_choices) {
  const auto one = [](const std::string& line) { return mistakes_of("[general]\n" + line, ""); };
  EXPECT_EQ(one("port = 0"), "pgdog.toml:2: general.port: must be an integer: 1 to 65535\n");
  EXPECT_EQ(one("port = 65536"), "pgdog.toml:2: general.port: must be an integer: 1 to 65535\n");
  EXPECT_EQ(one("port = \"6432\""), one("port = 0"));
  EXPECT_EQ(one("port = true"), one("port = 0"));
  EXPECT_EQ(one("port = 1.5"), one("port = 0"));
  EXPECT_EQ(one("port = 1979-05-27"), one("port = 0"));
  EXPECT_EQ(one("port = 6_432"), "");
  EXPECT_EQ(one("log_connections = 1"),
            "pgdog.toml:2: general.log_connections: must be true or false\n");
  EXPECT_EQ(one("host = 1"), "pgdog.toml:2: general.host: must be a string\n");
  EXPECT_EQ(one("pooler_mode = \"sesion\""),
            "pgdog.toml:2: general.pooler_mode: must be a string: transaction, session, "
            "statement\n");
  EXPECT_EQ(one("idle_timeout = -1"),
            "pgdog.toml:2: general.idle_timeout: must be an integer (milliseconds): 0 or more\n");
  EXPECT_THAT(one("idle_timeout = 99999999999999999999"), HasSubstr("pgdog.toml:2: "));
  EXPECT_EQ(one("mirror_exposure = 1.5"),
            "pgdog.toml:2: general.mirror_exposure: must be a number: 0 to 1\n");
  EXPECT_EQ(one("mirror_exposure = 1"), "");
  EXPECT_EQ(one("mirror_exposure = nan"), one("mirror_exposure = 2"));
  EXPECT_EQ(one("log_level = \"loud\""),
            "pgdog.toml:2: general.log_level: must be a level: trace, debug, info, warn, error, "
            "off\n");
  EXPECT_EQ(one("host = \"a\\u0000b\""),
            "pgdog.toml:2: general.host: must not contain control characters\n");
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"\"\nhost = \"h\"\n", ""),
            "pgdog.toml:2: databases.name: must be a string: not empty\n");
  EXPECT_EQ(mistakes_of("[[omnisharded_tables]]\ndatabase = \"app\"\ntables = [1]\n" + good_pgdog),
            "pgdog.toml:3: omnisharded_tables.tables: must be a list of strings\n");
  EXPECT_EQ(mistakes_of("[otel]\nheaders = { a = 1 }\n", ""),
            "pgdog.toml:2: otel.headers: must be a table of strings\n");
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"a\"\n", ""),
            "pgdog.toml:1: databases.host: is missing; must be a string\n");
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"a\"\nhost = \"h\"\npool_size = 3\n"
                        "max_pool_size = 4\n",
                        ""),
            "pgdog.toml:5: databases.max_pool_size: is another name of pool_size, which is given "
            "too\n");
}

TEST(config, syntax_errors_have_a_line) {
  EXPECT_THAT(mistakes_of("[general]\nport = \nhost = \"a\"\n", ""),
              HasSubstr("pgdog.toml:2: not TOML: "));
  EXPECT_THAT(mistakes_of("[general]\n\n\nport 6432\n", ""), HasSubstr("pgdog.toml:4: not TOML"));
  EXPECT_THAT(mistakes_of("[general]\nport = 1\nport = 2\n", ""), HasSubstr(": not TOML: "));
  EXPECT_THAT(mistakes_of(std::string(100'000, '['), ""), HasSubstr("nested too deeply"));
  std::string dotted = "a";
  for (int i = 0; i < 100'000; ++i) dotted += ".a";
  EXPECT_THAT(mistakes_of(dotted + " = 1", ""), HasSubstr("nested too deeply"));
  EXPECT_THAT(mistakes_of(std::string("a = 1\n\0", 7), ""), HasSubstr("pgdog.toml:2: "));
}

TEST(config, all_mistakes_of_both_files_at_once) {
  const auto text = mistakes_of(
      "[general]\nport = 0\nprot = 1\n[[databases]]\nname = \"app\"\nhost = \"h\"\nshard = 1\n",
      "[[users]]\nname = \"alice\"\ndatabase = \"other\"\nage = 3\n[[users]]\npassword = \"p\"\n");
  EXPECT_EQ(text,
            "pgdog.toml:2: general.port: must be an integer: 1 to 65535\n"
            "pgdog.toml:3: general.prot: unknown key; nearest known: port\n"
            "pgdog.toml:4: databases.shard: database \"app\" has no shard 0; shards are numbered "
            "from 0 without gaps\n"
            "users.toml:1: users.password: user \"alice\" has no password, passwords or "
            "password_hash; one is needed unless auth_type is \"trust\"\n"
            "users.toml:3: users.database: user \"alice\" names the database \"other\", which is "
            "not in [[databases]]\n"
            "users.toml:4: users.age: unknown key; nearest known: name\n"
            "users.toml:5: users.name: is missing; must be a string\n");
}

// A file that cannot be parsed must not make the other one look wrong.
TEST(config, syntax_error_hides_only_what_depends_on_that_file) {
  const auto text = mistakes_of("[general", "[[users]]\nname = \"a\"\ndatabase = \"x\"\nage = 1\n");
  EXPECT_THAT(text, HasSubstr("pgdog.toml:1: not TOML"));
  EXPECT_THAT(text, HasSubstr("users.toml:4: users.age"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("names the database")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("has no password")));
}

TEST(config, databases_that_do_not_fit_together) {
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"app\"\nhost = \"a\"\n"
                        "[[databases]]\nname = \"app\"\nhost = \"b\"\n"),
            "pgdog.toml:4: databases: database \"app\" has a second primary for shard 0; only one "
            "is allowed\n");
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"app\"\nhost = \"a\"\n"
                        "[[databases]]\nname = \"app\"\nhost = \"b\"\nshard = 2\n"),
            "pgdog.toml:4: databases.shard: database \"app\" has no shard 1; shards are numbered "
            "from 0 without gaps\n");
  const auto out = parse_both("[[databases]]\nname = \"app\"\nhost = \"a\"\nrole = \"auto\"\n");
  ASSERT_TRUE(out.config);
  EXPECT_THAT(out.config->databases, IsEmpty());
  EXPECT_THAT(format(out.warnings), HasSubstr("pgdog.toml:1: databases.role: database \"app\" has "
                                              "no host with role \"primary\" for shard 0"));
}

TEST(config, sharded_tables_that_do_not_fit) {
  const std::string again =
      "[[sharded_tables]]\ndatabase = \"app\"\nname = \"orders\"\ncolumn = \"id\"\n";
  EXPECT_EQ(mistakes_of(good_pgdog + again),
            "pgdog.toml:18: sharded_tables: a second entry for table \"orders\" of database "
            "\"app\"; only one is allowed\n");
  EXPECT_EQ(mistakes_of(good_pgdog + "[[sharded_tables]]\ndatabase = \"ap\"\ncolumn = \"id\"\n"),
            "pgdog.toml:19: sharded_tables.database: there is no database \"ap\" in "
            "[[databases]]\n");
  EXPECT_EQ(mistakes_of(good_pgdog + "[[sharded_tables]]\ndatabase = \"app\"\n"),
            "pgdog.toml:18: sharded_tables.column: is missing; must be the column that chooses "
            "the shard\n");
  // Entries without a table name stand for a column each.
  EXPECT_EQ(mistakes_of(good_pgdog + "[[sharded_tables]]\ndatabase = \"app\"\ncolumn = \"a\"\n"
                                     "[[sharded_tables]]\ndatabase = \"app\"\ncolumn = \"b\"\n"),
            "");
  EXPECT_EQ(mistakes_of(good_pgdog + "[[sharded_tables.mapping]]\nvalues = [1]\nstart = 1\n"
                                     "shard = 7\n"),
            "pgdog.toml:18: sharded_tables.mapping: has values and a range; only one of the two is "
            "allowed\n"
            "pgdog.toml:21: sharded_tables.mapping.shard: database \"app\" has no shard 7\n");
}

TEST(config, users_that_do_not_fit) {
  const std::string user = "[[users]]\nname = \"a\"\ndatabase = \"app\"\n";
  EXPECT_THAT(mistakes_of(good_pgdog, user), HasSubstr("has no password"));
  EXPECT_EQ(mistakes_of("[general]\nauth_type = \"trust\"\n" + good_pgdog.substr(10), user), "");
  EXPECT_EQ(mistakes_of(good_pgdog, user + "password_hash = \"md5abc\"\n"),
            "users.toml:4: users.password_hash: must be a verifier: SCRAM-SHA-256$iterations:salt$"
            "key:key, as `pgsled hash-password` prints it\n");
  const std::string key = std::string(43, 'A') + "=";
  const auto hash = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$" + key + ":" + key;
  EXPECT_EQ(mistakes_of(good_pgdog, user + "password_hash = \"" + hash + "\"\n"), "");
  EXPECT_THAT(mistakes_of(good_pgdog, user + "password_hash = \"" + hash.substr(0, 90) + "\"\n"),
              HasSubstr("must be a verifier"));
  EXPECT_EQ(mistakes_of(good_pgdog, good_users + good_users),
            "users.toml:6: users: a second entry of user \"alice\" for database \"app\"; only one "
            "is allowed\n");
}

TEST(config, tls) {
  EXPECT_EQ(mistakes_of("[general]\ntls_certificate = \"c.pem\"\n", ""),
            "pgdog.toml:2: general.tls_certificate: needs tls_private_key as well\n");
  EXPECT_EQ(mistakes_of("[general]\ntls_server_private_key = \"k.pem\"\n", ""),
            "pgdog.toml:2: general.tls_server_private_key: needs tls_server_certificate as well\n");
  EXPECT_EQ(mistakes_of("[general]\ntls_client_required = true\n", ""),
            "pgdog.toml:2: general.tls_client_required: needs tls_certificate and "
            "tls_private_key\n");
}

TEST(config, files) {
  auto out = load("/nonexistent/pgdog.toml", "/nonexistent/users.toml");
  EXPECT_FALSE(out.config);
  EXPECT_EQ(format(out.mistakes),
            "/nonexistent/pgdog.toml: cannot be read: No such file or directory\n"
            "/nonexistent/users.toml: cannot be read: No such file or directory\n");
  EXPECT_THAT(format(load("/tmp", "/tmp").mistakes), HasSubstr("/tmp: cannot be read: "));

  const auto folder = std::filesystem::path(::testing::TempDir());
  const auto pgdog = folder / "config_test.pgdog.toml", users = folder / "config_test.users.toml";
  std::ofstream(pgdog) << "[general]\ntls_certificate = \"/nonexistent/c.pem\"\n"
                          "tls_private_key = \""
                       << pgdog.string() << "\"\n";
  std::ofstream(users) << "";
  EXPECT_EQ(format(load(pgdog, users).mistakes),
            pgdog.string() + ":2: general.tls_certificate: the file \"/nonexistent/c.pem\" cannot "
                             "be read\n");
  std::ofstream(pgdog) << good_pgdog;
  std::ofstream(users) << good_users;
  EXPECT_TRUE(load(pgdog, users).config);
  std::filesystem::remove(pgdog);
  std::filesystem::remove(users);
}

TEST(config, certificates_are_loaded) {
  const auto folder = std::filesystem::path(::testing::TempDir());
  const auto pgdog = folder / "config_test.tls.toml", users = folder / "config_test.none.toml";
  std::ofstream(users) << "";
  std::ofstream(pgdog) << "[general]\ntls_certificate = \"" << pgdog.string()
                       << "\"\ntls_private_key = \"" << pgdog.string()
                       << "\"\ntls_server_ca_certificate = \"" << pgdog.string() << "\"\n";
  const auto mistakes = format(load(pgdog, users).mistakes);
  EXPECT_THAT(mistakes, HasSubstr(pgdog.string() +
                                  ":2: general.tls_certificate: could not load the certificate"));
  EXPECT_THAT(mistakes, HasSubstr(pgdog.string() + ":4: general.tls_server_ca_certificate: could "
                                                   "not load the CA certificates"));
  std::filesystem::remove(pgdog);
  std::filesystem::remove(users);
}

TEST(config, the_admin_database_is_nobody_elses) {
  EXPECT_EQ(mistakes_of("[[databases]]\nname = \"admin\"\nhost = \"h\"\n", ""),
            "pgdog.toml:1: databases.name: \"admin\" is the name of the admin database "
            "(admin.name)\n");
  const auto read = parse_both(good_pgdog, "[[users]]\nname = \"u\"\ndatabase = \"admin\"\n"
                                           "password = \"p\"\n");
  ASSERT_TRUE(read.config);
  EXPECT_THAT(format(read.warnings), HasSubstr("only the user of [admin] may use \"admin\""));
}

TEST(config, what_servers_take) {
  const auto with = [](const std::string& value) {
    return mistakes_of("[[databases]]\nname = \"a\"\nhost = \"h\"\nstatement_timeout = " + value + "\n",
                       "");
  };
  EXPECT_EQ(with("2147483647") + with("9223372036854775807"), "");
  EXPECT_THAT(with("2147483648"), HasSubstr("pgdog.toml:4: databases.statement_timeout: "));
  EXPECT_THAT(with("2147483648"), HasSubstr("0 to 2147483647, or never"));
}

TEST(config, no_time_is_no_limit_where_none_would_do) {
  const auto read = parse_both(
      "[general]\ncheckout_timeout = 0\nclient_idle_timeout = 0\nshutdown_timeout = 0\n", "");
  ASSERT_TRUE(read.config) << format(read.mistakes);
  EXPECT_EQ(read.config->general.checkout_timeout, never);
  EXPECT_EQ(read.config->general.client_idle_timeout, never);
  EXPECT_EQ(read.config->general.shutdown_timeout, 0);
}

// good_pgdog ends with line 17, in the table of "orders" by "customer_id".
TEST(config, rules_of_sharded_tables) {
  const auto hashed = parse_both(good_pgdog + "data_type = \"uuid\"\nhasher = \"sha1\"\n");
  ASSERT_TRUE(hashed.config) << format(hashed.mistakes);
  const auto& table = hashed.config->sharded_tables.at(0);
  EXPECT_TRUE(table.acted_on);
  EXPECT_EQ(table.hasher, placement::hasher::sha1);
  EXPECT_FALSE(table.mapping);

  const std::string older =
      "[[sharded_mappings]]\ndatabase = \"app\"\ncolumn = \"customer_id\"\nkind = ";
  const auto newer = parse_both(good_pgdog +
                                "[[sharded_tables.mapping]]\nvalues = [1, \"2\"]\nshard = 1\n"
                                "[[sharded_tables.mapping]]\nstart = 10\nend = 20\nshard = 0\n"
                                "[[sharded_tables.mapping]]\nshard = 1\n");
  const auto same = parse_both(good_pgdog + older + "\"list\"\nvalues = [1, 2]\nshard = 1\n" +
                               older + "\"range\"\nstart = 10\nend = 20\nshard = 0\n" + older +
                               "\"default\"\nshard = 1\n");
  ASSERT_TRUE(newer.config) << format(newer.mistakes);
  ASSERT_TRUE(same.config) << format(same.mistakes);
  const auto& mapping = newer.config->sharded_tables.at(0).mapping;
  ASSERT_TRUE(mapping);
  EXPECT_EQ(mapping->type, "bigint");
  EXPECT_EQ(mapping->list.size(), 2u);
  EXPECT_EQ(mapping->ranges.at(0).end, "20");
  EXPECT_EQ(mapping->fallback, 1);
  EXPECT_EQ(mapping->id, same.config->sharded_tables.at(0).mapping->id);
  EXPECT_THAT(newer.config->unacted, ::testing::IsEmpty());
  EXPECT_THAT(same.config->unacted, ::testing::IsEmpty());
}

TEST(config, how_rows_are_copied) {
  const auto out = parse_both(
      "[general]\nresharding_copy_format = \"text\"\nresharding_parallel_copies = 500\n"
      "[replication]\npg_dump_path = \"/opt/pg_dump\"\n"
      "[pgsled]\nresharding_copy_rate = 1000\nresharding_slot_limit = 2000000\n", "");
  ASSERT_TRUE(out.config) << format(out.mistakes);
  EXPECT_EQ(out.config->general.resharding_copy_format, "text");
  EXPECT_EQ(out.config->general.resharding_parallel_copies, 32u) << "bounded";
  EXPECT_EQ(out.config->general.pg_dump_path, "/opt/pg_dump");
  EXPECT_EQ(out.config->pgsled.resharding_copy_rate, 1000);
  EXPECT_EQ(out.config->pgsled.resharding_slot_limit, 2'000'000);
}

TEST(config, databases_to_be_moved_to) {
  const auto host = [](const std::string& name, int shard, bool only) {
    return "[[databases]]\nname = \"" + name + "\"\nhost = \"h\"\nshard = " +
           std::to_string(shard) + (only ? "\nresharding_only = true\n" : "\n");
  };
  const auto out = parse_both("[general]\ncutover_traffic_stop_threshold = 7\n"
                              "cutover_replication_lag_threshold = 8\n"
                              "cutover_last_transaction_delay = 9\ncutover_timeout = 10\n"
                              "cutover_timeout_action = \"cutover\"\n" +
                                  host("prod", 0, false) + host("prod_new", 0, true) +
                                  host("prod_new", 1, true), "");
  ASSERT_TRUE(out.config) << format(out.mistakes);
  EXPECT_EQ(out.config->general.cutover_traffic_stop_threshold, 7);
  EXPECT_EQ(out.config->general.cutover_replication_lag_threshold, 8);
  EXPECT_EQ(out.config->general.cutover_last_transaction_delay, 9);
  EXPECT_EQ(out.config->general.cutover_timeout, 10);
  EXPECT_TRUE(out.config->general.cutover_action_unsafe);
  ASSERT_EQ(out.config->databases.size(), 3u);
  EXPECT_FALSE(out.config->databases[0].resharding_only);
  EXPECT_TRUE(out.config->databases[2].resharding_only);
  EXPECT_THAT(out.config->unacted, ::testing::IsEmpty());
  // A single host of a database that clients use is left out, and said.
  const auto mixed = parse_both(host("prod", 0, false) + host("prod", 0, true), "");
  ASSERT_TRUE(mixed.config) << format(mixed.mistakes);
  EXPECT_EQ(mixed.config->databases.size(), 1u);
  EXPECT_EQ(mixed.config->unacted.size(), 1u);
  // And two of them for one shard are as wrong as anywhere.
  EXPECT_FALSE(parse_both(host("new", 0, true) + host("new", 0, true), "").config);
}

TEST(config, mistakes_of_mappings) {
  const std::string mapping = "[[sharded_tables.mapping]]\n";
  const auto one = [&](const std::string& more) { return mistakes_of(good_pgdog + more); };
  EXPECT_EQ(one(mapping + "values = [1, \"x\"]\nshard = 0\n"),
            "pgdog.toml:19: sharded_tables.mapping.values: must be an integer that fits bigint\n");
  EXPECT_EQ(one("data_type = \"uuid\"\n" + mapping + "values = [1]\nshard = 0\n"),
            "pgdog.toml:20: sharded_tables.mapping.values: must be a uuid\n");
  EXPECT_EQ(one("data_type = \"varchar\"\n" + mapping + "values = [\"a\", 1]\nshard = 0\n"),
            "pgdog.toml:20: sharded_tables.mapping.values: must be a string, as data_type is "
            "\"varchar\"\n");
  EXPECT_EQ(one(mapping + "values = [1]\nshard = 0\n" + mapping + "values = [\"+1\"]\nshard = 1\n"),
            "pgdog.toml:22: sharded_tables.mapping.values: \"+1\" belongs to shard 0 already (line "
            "19)\n");
  EXPECT_EQ(one(mapping + "start = 5\nend = 5\nshard = 0\n"),
            "pgdog.toml:18: sharded_tables.mapping: is empty: start must be less than end\n");
  EXPECT_EQ(one(mapping + "end = 5\nshard = 0\n" + mapping + "start = 4\nshard = 1\n"),
            "pgdog.toml:21: sharded_tables.mapping: overlaps another range (line 18)\n");
  EXPECT_EQ(one(mapping + "shard = 0\n" + mapping + "shard = 1\n"),
            "pgdog.toml:20: sharded_tables.mapping: a second default, without values and bounds; "
            "only one is allowed\n");

  const auto older = [](const std::string& rest) {
    return "[[sharded_mappings]]\ndatabase = \"app\"\ncolumn = \"customer_id\"\n" + rest;
  };
  EXPECT_EQ(one(older("kind = \"list\"\nstart = 1\nshard = 0\n")),
            "pgdog.toml:18: sharded_mappings.kind: \"list\" needs values, and neither start nor "
            "end\n");
  EXPECT_EQ(one(older("kind = \"range\"\nshard = 0\n")),
            "pgdog.toml:18: sharded_mappings.kind: \"range\" needs start, end or both, and no "
            "values\n");
  EXPECT_EQ(one(older("kind = \"default\"\nend = 1\nshard = 7\n")),
            "pgdog.toml:18: sharded_mappings.kind: \"default\" takes neither values nor start nor "
            "end\n"
            "pgdog.toml:23: sharded_mappings.shard: database \"app\" has no shard 7\n");
  EXPECT_EQ(one(older("kind = \"default\"\ntable = \"other\"\nshard = 0\n")),
            "pgdog.toml:18: sharded_mappings: fits no entry of [[sharded_tables]]: database, column "
            "and, where they are given, table and schema must be the same\n");
  EXPECT_EQ(one(mapping + "shard = 0\n" + older("kind = \"default\"\nshard = 0\n")),
            "pgdog.toml:20: sharded_tables.mapping: line 20 places the same table by "
            "[[sharded_mappings]]; only one of the two is allowed\n");
  EXPECT_EQ(one(older("kind = \"list\"\nvalues = [1]\nshard = 0\n") +
                older("kind = \"list\"\nvalues = [2]\nshard = 0\ntable = \"orders\"\n")),
            "pgdog.toml:24: sharded_mappings: line 18 is for the same table, but names table and "
            "schema otherwise; it is not clear which of them counts\n");
}

TEST(config, given_keys_without_effect_are_named_once) {
  const auto out = parse_both(
      good_pgdog +
          "data_type = \"vector\"\n[[databases]]\nname = \"app\"\nhost = \"r\"\nrole = \"replica\"\n"
          "lb_weight = 1\n[[databases]]\nname = \"app\"\nhost = \"s\"\nrole = \"replica\"\n"
          "lb_weight = 2\n[memory]\nnet_buffer = 4096\n[[sharded_schemas]]\ndatabase = \"app\"\n"
          "name = \"tenant\"\n",
      "[[users]]\nname = \"u\"\nall_databases = true\npassword = \"p\"\nserver_auth = "
      "\"rds_iam\"\n");
  ASSERT_TRUE(out.config) << format(out.mistakes);
  EXPECT_THAT(out.config->unacted,
              ElementsAre("pgdog.toml:23: databases.lb_weight (and 1 more)",
                          "pgdog.toml:30: memory.net_buffer",
                          "pgdog.toml:32: sharded_schemas.database",
                          "pgdog.toml:33: sharded_schemas.name",
                          "pgdog.toml:22: databases.role = \"replica\" (and 1 more)",
                          "users.toml:5: users.server_auth = \"rds_iam\"",
                          "pgdog.toml:18: sharded_tables.data_type = \"vector\""));
  EXPECT_EQ(out.config->databases.size(), 2u);
  ASSERT_EQ(out.config->sharded_tables.size(), 2u);
  EXPECT_FALSE(out.config->sharded_tables[0].acted_on);
  EXPECT_FALSE(out.config->sharded_tables[1].acted_on);
  EXPECT_EQ(out.config->sharded_tables[1].schema, "tenant");
}

TEST(config, values_for_show_config) {
  const auto out = parse_both(good_pgdog + "[memory]\nnet_buffer = 1\n");
  ASSERT_TRUE(out.config);
  std::map<std::string, setting_value> values;
  for (const auto& one : out.config->values) values[one.name] = one;
  EXPECT_EQ(values.at("port").value, "7000");
  EXPECT_TRUE(values.at("port").given);
  EXPECT_EQ(values.at("host").value, "0.0.0.0");
  EXPECT_FALSE(values.at("host").given);
  EXPECT_EQ(values.at("query_timeout").value, "never");
  EXPECT_EQ(values.at("client_idle_timeout").value, "never");
  EXPECT_EQ(values.at("admin.password").value, "****");
  EXPECT_EQ(values.at("pgsled.dispatch").value, "cached");
  EXPECT_FALSE(values.at("memory.net_buffer").acted_on);
  EXPECT_TRUE(values.at("memory.net_buffer").given);
  EXPECT_TRUE(values.at("two_phase_commit").acted_on);
  EXPECT_EQ(values.at("two_phase_commit").value, "true");
}

TEST(config, special_values) {
  const auto general_of = [](const std::string& lines) {
    const auto out = parse_both("[general]\n" + lines, "");
    EXPECT_TRUE(out.config) << format(out.mistakes);
    return out.config ? out.config->general : general();
  };
  EXPECT_EQ(general_of("idle_timeout = 9223372036854775806").idle_timeout, never);
  EXPECT_EQ(general_of("workers = 0").workers, 1u);
  EXPECT_EQ(general_of("workers = 3").workers, 3u);
  EXPECT_EQ(general_of("").workers, 0u);
  EXPECT_EQ(general_of("connect_attempts = 0").connect_attempts, 1u);
  EXPECT_EQ(general_of("max_pool_size = 33").default_pool_size, 33u);
  EXPECT_EQ(general_of("log_level = \"pgdog=debug,WARN\"").log_level, "warn");
  EXPECT_EQ(general_of("log_level = \"pgdog=debug\"").log_level, "info");
  // Without warnings to give, a limit that only warns is not enforced.
  EXPECT_EQ(general_of("query_size_limit = 10").query_size_limit, never);
  EXPECT_EQ(general_of("query_size_limit = 10\nquery_size_limit_action = \"block\"")
                .query_size_limit,
            10);
}

TEST(config, admin_of_users_toml_replaces_the_other) {
  const auto out = parse_both(good_pgdog, good_users + "[admin]\nuser = \"root\"\n");
  ASSERT_TRUE(out.config);
  EXPECT_EQ(out.config->admin.user, "root");
  EXPECT_EQ(out.config->admin.password, "");
  EXPECT_THAT(format(out.warnings), HasSubstr("nobody can log in to the admin database"));
}

TEST(config, nearest_key) {
  const std::vector<std::string_view> known = {"port", "host", "idle_timeout"};
  EXPECT_EQ(nearest("prt", known), "port");
  EXPECT_EQ(nearest("idle_timeuot", known), "idle_timeout");
  EXPECT_EQ(nearest("something_else", known), "");
  EXPECT_EQ(nearest(std::string(100'000, 'x'), known), "");
}

}  // namespace
}  // namespace pgsled::config
