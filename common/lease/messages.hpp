#pragma once
// What a frontend worker ("holder") and a pooler say to each other about server connections.
// One message is one SOCK_SEQPACKET packet on the socket lane, or one bus envelope of kind
// `lease` on the relay lane. docs/formats/lease.md has the bytes. Pure.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"

namespace pgsled::lease {

using pool_id = std::uint32_t;
using lease_id = std::uint64_t;      // unique within a pooler's life
using generation = std::uint32_t;    // counts up each time the connection is lent
using statement_id = std::array<std::uint8_t, 16>;  // names a prepared statement by content
using text_pairs = std::vector<std::pair<std::string, std::string>>;

inline constexpr std::size_t max_message_bytes = 128 * 1024;
// A connection with more prepared statements than this goes back `dirty`.
inline constexpr std::size_t max_statements = 4096;

// What belongs to the connection and travels with the lease, both ways.
struct connection_state {
  text_pairs settings;  // applied on top of the pool's defaults: name, value as SQL text
  std::vector<statement_id> statements;   // prepared on it by pgsled
  std::string unread;                     // bytes read but not yet parsed
};

// holder → pooler
struct hello {           // first message of a holder
  std::string holder;    // its instance name
  std::uint64_t epoch = 0;
  std::string network;   // id of its network namespace
  std::vector<std::pair<pool_id, std::uint32_t>> orphans;  // held from a pooler that died
};
struct demand {          // absolute, not a difference; 0 clears
  pool_id pool = 0;
  std::uint32_t waiting = 0;
  std::uint64_t epoch = 0;
  std::uint32_t oldest_ms = 0;  // how long the first of them has waited
  std::uint64_t map_epoch = 0;  // of the bucket map by which they came to this shard
};
enum class condition : std::uint8_t {
  clean = 0,   // may be lent at once
  dirty = 1,   // pooler runs DISCARD ALL first
  broken = 2,  // pooler closes it, after a cancel when something may still run
};
struct give_back {
  lease_id lease = 0;
  lease::generation generation = 0;
  lease::condition condition = condition::clean;
  connection_state state;
  text_pairs parameters{};  // ParameterStatus values, as in grant
};
struct recall_ack {      // "heard; comes back at its next transaction end"
  pool_id pool = 0;
};
struct cancel {          // cancel what runs on the lease, if it is still of this generation
  lease_id lease = 0;
  lease::generation generation = 0;
};
struct orphans_left {    // absolute count, after one ended
  pool_id pool = 0;
  std::uint32_t count = 0;
};

// pooler → holder
struct welcome {
  std::string pooler;    // instance
  std::uint64_t boot = 0;  // random, new at each start
};
struct grant {           // socket lane: the descriptor comes with the packet
  pool_id pool = 0;
  lease_id lease = 0;
  lease::generation generation = 0;
  std::uint32_t backend_pid = 0;
  text_pairs parameters;  // ParameterStatus values of the connection as it is now
  connection_state state;
};
struct recall {  // give back `count` leases of the pool: idle at once, others at transaction end
  pool_id pool = 0;
  std::uint32_t count = 0;
};
struct retire {          // give this one back at its next transaction end (lifetime, reload)
  lease_id lease = 0;
};
struct cancel_done {     // the server has closed the cancel connection
  lease_id lease = 0;
  lease::generation generation = 0;
};
struct pool_failed {     // could not connect: tell the clients that wait now
  pool_id pool = 0;
  pg_error error;
};

using message = std::variant<hello, demand, give_back, recall_ack, cancel, orphans_left, welcome,
                             grant, recall, retire, cancel_done, pool_failed>;

void encode(const message& from, std::string& to);  // appends
// Fails on truncated, trailing, or over-long input; lengths are checked before any allocation.
tl::expected<message, std::string> decode(byte_span from);

}  // namespace pgsled::lease
