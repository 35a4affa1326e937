#pragma once
// Short cuts for the tests of common/config.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "common/config/config.hpp"

namespace pgsled::config::testing {

inline const std::string good_pgdog =
    "[general]\n"                        // 1
    "port = 7000\n"                      // 2
    "query_timeout = 9223372036854775807\n"
    "[admin]\n"
    "password = \"secret\"\n"
    "[[databases]]\n"                    // 6
    "name = \"app\"\n"
    "host = \"10.0.0.1\"\n"
    "[[databases]]\n"                    // 9
    "name = \"app\"\n"
    "host = \"10.0.0.2\"\n"
    "shard = 1\n"                        // 12
    "database_name = \"app_1\"\n"
    "[[sharded_tables]]\n"               // 14
    "database = \"app\"\n"
    "name = \"orders\"\n"
    "column = \"customer_id\"\n";
inline const std::string good_users =
    "[[users]]\n"
    "name = \"alice\"\n"
    "database = \"app\"\n"
    "password = \"one\"\n"
    "passwords = [\"two\"]\n";

inline outcome parse_both(const std::string& pgdog, const std::string& users = good_users) {
  return parse(pgdog, "pgdog.toml", users, "users.toml");
}
inline std::string mistakes_of(const std::string& pgdog, const std::string& users = good_users) {
  return format(parse_both(pgdog, users).mistakes);
}

inline std::filesystem::path source_root() {
  return PGSLED_SOURCE_DIR;
}
inline std::string contents(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace pgsled::config::testing
