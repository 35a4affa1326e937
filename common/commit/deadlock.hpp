#pragma once
// deadlock: transactions over several shards that wait for each other in a circle that no server
// sees whole. Pure: who waits for whom on each shard goes in, whom to cancel comes out.
//
// Every leg of such a transaction holds a shared advisory lock that says which it is (mark_sql), so
// that the shards' own lock tables tell which backends of different shards belong together.

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace pgsled::commit {

struct mark {
  std::uint32_t client = 0;   // pid of the client's cancel key; 0: a backend without a mark
  std::uint32_t began = 0;    // milliseconds, the lower 31 bits; the larger one is the younger
  auto operator<=>(const mark&) const = default;
};

// Held until the end of the transaction, or of the savepoint in which it is said.
std::string mark_sql(const mark&);

struct waits_for {
  std::uint32_t shard = 0;
  mark waiter, blocker;
  std::uint32_t waiter_pid = 0, blocker_pid = 0;   // for those without a mark
};

// Of each set of transactions in which all wait for all: the youngest. Only sets that extend over
// more than one shard; the others are the server's own to end.
std::vector<mark> deadlock_victims(const std::vector<waits_for>&);

}  // namespace pgsled::commit
