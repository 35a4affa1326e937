#pragma once
// statements: what is sent to servers to commit over several shards. The functions of schema
// pgsled are in services/router/commit/decision_schema.cpp. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgsled::commit::statements {

// Value: the mark of the open transaction (name.hpp).
std::string open_decision(std::int64_t decide_within_ms);
std::string prepare(std::string_view gid);           // the last tag is the vote
// Row and COMMIT in one message: no process of ours can stop between the two.
std::string decide(std::string_view key, std::string_view database,
                   const std::vector<std::uint32_t>& participants);
std::string commit();                                // plain
std::string finish(std::string_view gid, bool commit);   // must be a message of its own
std::string literal(std::string_view);               // quoted, whatever the session's settings

}  // namespace pgsled::commit::statements
