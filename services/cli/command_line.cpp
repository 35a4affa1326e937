#include "services/cli/command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "common/auth/scram.hpp"
#include "common/config/config.hpp"
#include "services/cli/hash.hpp"
#include "services/cli/health.hpp"
#include "services/cli/import.hpp"
#include "services/cli/keys.hpp"
#include "services/cli/reshard.hpp"
#include "services/cli/run_dir.hpp"
#include "services/cli/status.hpp"
#include "services/cli/up.hpp"

namespace pgsled::cli {
namespace {

int check_config(const std::string& pgdog, const std::string& users) {
  const auto out = config::load(pgdog, users);
  fmt::print(stderr, "{}", config::format(out.mistakes));
  for (const auto& one : out.warnings) {
    fmt::print(stderr, "warning: {}", config::format({one}));
  }
  if (!out.config) {
    const auto count = out.mistakes.size();
    fmt::print(stderr, "{} mistake{}\n", count, count == 1 ? "" : "s");
    return 2;
  }
  for (const auto& key : out.config->unacted) {
    fmt::print(stderr, "not acted on by this version: {}\n", key);
  }
  fmt::print("{} and {} are valid\n", pgdog, users);
  return 0;
}

int print_hash(const std::string& value, const hash_options& options) {
  const auto where = place(value, options);
  if (!where) {
    fmt::print(stderr, "pgsled hash: {}\n", where.error().message);
    return 2;
  }
  fmt::print("{}", render(*where));
  return 0;
}

// Exit status 1: some value was invalid.
int print_hashes(bool zero_terminated, const hash_options& options) {
  std::ios::sync_with_stdio(false);
  const auto good = place_all(std::cin, zero_terminated ? '\0' : '\n', options, std::cout);
  std::cout.flush();
  if (!good) {
    fmt::print(stderr, "pgsled hash: {}\n", good.error().message);
    return 2;
  }
  return *good ? 0 : 1;
}

// "-" reads the password from standard input, where `ps` does not show it.
int hash_password(std::string password) {
  if (password == "-" && !std::getline(std::cin, password)) password.clear();
  if (password.empty()) {
    fmt::print(stderr, "pgsled hash-password: the password is empty\n");
    return 2;
  }
  fmt::print("{}\n", auth::format_verifier(auth::make_verifier(password, auth::random_bytes(16))));
  return 0;
}

int print_docs(const std::string& topic) {
  const auto text = topic == "configuration"   ? config::markdown_reference()
                    : topic == "example-pgdog" ? config::example_pgdog_toml()
                                               : config::example_users_toml();
  fmt::print("{}", text);
  return 0;
}

// CLI11 takes "-42" for a flag; behind "--" it is a value.
std::vector<std::string> shielded(int argc, const char* const* argv) {
  std::vector<std::string> all(argv + 1, argv + argc), negative;
  if (all.empty() || all.front() != "hash") return all;
  for (auto one = all.begin() + 1; one != all.end() && *one != "--";) {
    const bool number = one->size() > 1 && (*one)[0] == '-' &&
                        one->find_first_not_of("0123456789", 1) == std::string::npos;
    if (!number) {
      ++one;
      continue;
    }
    negative.push_back(*one);
    one = all.erase(one);
  }
  if (!negative.empty()) all.emplace_back("--");
  all.insert(all.end(), negative.begin(), negative.end());
  return all;
}

}  // namespace

int run(int argc, const char* const* argv) {
  CLI::App app("pgsled: pools, balances and shards PostgreSQL", "pgsled");
  app.set_version_flag("--version", "pgsled " PGSLED_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  std::string pgdog = "pgdog.toml", users = "users.toml";

  up_options up_flags;
  auto* up_command = app.add_subcommand("up", "run a suite on this machine, in the foreground");
  up_command->add_option("--config", up_flags.config, "pgdog.toml")->capture_default_str();
  up_command->add_option("--users", up_flags.users, "users.toml")->capture_default_str();
  up_command->add_option("--run-dir", up_flags.run_dir, "directory of sockets, mode 0700")
      ->default_str(default_run_dir());
  const auto counted = [&](const char* flag, int& to, int least, const char* help) {
    up_command->add_option(flag, to, help)->check(CLI::Range(least, 99))->capture_default_str();
  };
  counted("--poolers", up_flags.poolers, 1, "how many poolers");
  counted("--frontends", up_flags.frontends, 1, "how many frontends");
  counted("--replicators", up_flags.replicators, 0, "how many replicators");
  up_command->callback([&] { exit_status = up(up_flags); });

  status_options status_flags;
  auto* status_command = app.add_subcommand("status", "the processes of a running suite");
  status_command->add_flag("--json", status_flags.json, "one JSON object instead of a table");
  auto* directory = status_command->add_option("--run-dir", status_flags.run_dir,
                                               "directory of its sockets");
  directory->default_str(default_run_dir());
  status_command->add_option("--router", status_flags.router, "endpoint of its router")
      ->excludes(directory);
  status_command->callback([&] { exit_status = status(status_flags); });

  std::string http;
  auto* health_command = app.add_subcommand("health", "whether a process is ready, else why not");
  health_command->add_option("--http", http, "as it was given to the process, HOST:PORT")
      ->envname("PGSLED_HTTP")
      ->required();
  health_command->callback([&] { exit_status = health(http); });

  reshard_options moving;
  auto* reshard = app.add_subcommand("reshard", "move rows between shards and clusters");
  reshard->require_subcommand(1);
  const auto moves = [&](const char* name, const char* help, int (*act)(const reshard_options&)) {
    auto* one = reshard->add_subcommand(name, help);
    one->add_option("--run-dir", moving.run_dir, "directory of the suite's sockets")
        ->default_str(default_run_dir());
    one->add_flag("--json", moving.json, "one JSON object a line");
    one->callback([&, act] { exit_status = act(moving); });
    return one;
  };
  const auto starts = [&](const char* name, const char* help) {
    auto* one = moves(name, help, reshard_start);
    one->preparse_callback([&, name](std::size_t) { moving.kind = name; });
    one->add_option("--database", moving.database, "as clients know it")->required();
    one->add_flag("--dry-run", moving.dry_run, "only say what is missing");
    return one;
  };
  const auto numbers = CLI::Range(0, 1023);
  starts("add-shard", "give a joining shard its part of the rows")
      ->add_option("--shard", moving.shard, "its number; none: the first that is joining")
      ->check(numbers);
  starts("remove-shard", "spread all rows of a shard over the others")
      ->add_option("shard", moving.shard, "its number")
      ->required()
      ->check(numbers);
  starts("rebalance", "even out what the shards own");
  const auto starts_to = [&](const char* name, const char* help) {
    auto* one = starts(name, help);
    one->add_option("--to", moving.to, "the other database, with resharding_only = true")
        ->required();
    return one;
  };
  starts_to("new-cluster", "move a database to the servers of another one")
      ->add_flag("--wait", moving.wait, "switch over when told by cutover");
  starts_to("schema-sync", "copy only its definitions there");
  const auto acts = [&](const char* name, const char* help) {
    auto* one = moves(name, help, reshard_act);
    one->preparse_callback([&, name](std::size_t) { moving.act = name; });
    one->add_option("job", moving.job, "as status names it")->required();
  };
  acts("cutover", "let clients use the new cluster");
  acts("roll-back", "let clients use the old cluster again");
  acts("finish", "keep the new cluster: the old one follows it no longer");
  auto* status_of_moves =
      moves("status", "the moves that are under way, and the last ones", reshard_status);
  status_of_moves->add_flag("--follow", moving.follow, "show them until they are over");
  moves("abort", "undo a move that has not switched over yet", reshard_abort)
      ->add_option("job", moving.job, "as status names it")
      ->required();

  auto* check = app.add_subcommand("check-config", "check both configuration files");
  check->add_option("--config", pgdog, "pgdog.toml")->capture_default_str();
  check->add_option("--users", users, "users.toml")->capture_default_str();
  check->callback([&] { exit_status = check_config(pgdog, users); });

  import_options importing;
  auto* import = app.add_subcommand("import", "make both files of PgBouncer's");
  import->add_option("ini", importing.ini, "pgbouncer.ini")->required();
  import->add_option("userlist", importing.userlist, "userlist.txt; none: its auth_file");
  import->add_option("--config", importing.pgdog, "the new pgdog.toml")->capture_default_str();
  import->add_option("--users", importing.users, "the new users.toml")->capture_default_str();
  import->callback([&] { exit_status = import_files(importing); });

  std::string value;
  hash_options hashing;
  bool bulk = false, zero_terminated = false;
  auto* hash = app.add_subcommand("hash", "hash, bucket and shard of a key");
  auto* key = hash->add_option("value", value, "the key");
  hash->add_option("--type", hashing.type, "type of the sharding column")
      ->check(CLI::IsMember({"bigint", "varchar", "uuid"}))
      ->capture_default_str();
  hash->add_option("--hasher", hashing.hasher, "function, as in pgdog.toml")
      ->check(CLI::IsMember({"postgres", "sha1"}))
      ->capture_default_str();
  hash->add_option("--shards", hashing.shards, "number of shards")->check(CLI::Range(1, 1024));
  hash->add_option("--buckets", hashing.buckets, "number of buckets; none: as many as shards")
      ->check(CLI::Range(1, 1 << 24));
  auto* from_input = hash->add_flag("--stdin", bulk,
                                    "read a key from each line; prints \"hash bucket shard\" or "
                                    "\"invalid\" for each")
                         ->excludes(key);
  hash->add_flag("--null", zero_terminated, "keys end with a zero byte instead of a line feed")
      ->needs(from_input);
  hash->callback([&] {
    if (!bulk && key->count() == 0) throw CLI::RequiredError("value or --stdin");
    exit_status = bulk ? print_hashes(zero_terminated, hashing) : print_hash(value, hashing);
  });

  std::string password;
  auto* verifier = app.add_subcommand("hash-password", "SCRAM verifier for password_hash");
  verifier->add_option("password", password, "the password; - reads it from standard input")
      ->required();
  verifier->callback([&] { exit_status = hash_password(password); });

  std::string key_path;
  auto* keys = app.add_subcommand("keys", "make a pair of CURVE keys, for --curve-dir");
  keys->add_option("path", key_path, "writes PATH.public and PATH.secret")->required();
  keys->callback([&] { exit_status = make_keys(key_path); });

  std::string topic;
  auto* docs = app.add_subcommand("docs", "print a generated document");
  docs->add_option("topic", topic, "configuration, example-pgdog or example-users")
      ->required()
      ->check(CLI::IsMember({"configuration", "example-pgdog", "example-users"}));
  docs->callback([&] { exit_status = print_docs(topic); });

  try {
    auto arguments = shielded(argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}

}  // namespace pgsled::cli
