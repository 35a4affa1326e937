#include "common/commit/statements.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace pgsled::commit::statements {

namespace {

// A commit that is only in memory could be lost after another shard has acted on it.
// remote_apply is more than `on` and stays.
constexpr std::string_view synchronous =
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) WHERE "
    "pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply'); ";

}  // namespace

std::string literal(std::string_view text) {
  std::string made = " E'";   // E: means the same with and without standard_conforming_strings
  for (const char c : text) {
    if (c == '\'' || c == '\\') made += c;
    made += c;
  }
  return made + "'";
}

std::string open_decision(std::int64_t decide_within_ms) {
  return fmt::format("{}SELECT pgsled.open_decision({})", synchronous, decide_within_ms);
}

std::string prepare(std::string_view gid) {
  return fmt::format("{}PREPARE TRANSACTION '{}'", synchronous, gid);
}

std::string decide(std::string_view key, std::string_view database,
                   const std::vector<std::uint32_t>& participants) {
  return fmt::format("SELECT pgsled.decide('{}',{}, '{{{}}}'); COMMIT", key, literal(database),
                     fmt::join(participants, ","));
}

std::string commit() { return "COMMIT"; }

std::string finish(std::string_view gid, bool commit) {
  return fmt::format("{} PREPARED '{}'", commit ? "COMMIT" : "ROLLBACK", gid);
}

}  // namespace pgsled::commit::statements
