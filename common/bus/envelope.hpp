#pragma once
// The envelope: a fixed little-endian header before every message between processes.
// docs/formats/envelope.md has the bytes and the upgrade rule. Pure; never throws.

#include <cstdint>
#include <optional>
#include <tl/expected.hpp>
#include <string>

#include "common/base/bytes.hpp"

namespace pgsled::bus {

// Never change or reuse a value.
enum class kind : std::uint16_t {
  hello = 1,           // peer → router, JSON: see snapshot::hello
  welcome = 2,         // router → peer, JSON: snapshot of that service
  heartbeat = 3,       // both, empty
  config = 4,          // router → peer, JSON: a newer snapshot
  ack = 5,             // peer → router, empty or JSON (snapshot::in_effect); epoch in the header
  plan_request = 6,    // frontend → router, plan::request
  plan_answer = 7,     // router → frontend, plan::answer
  error = 8,           // any answer that failed, JSON {sqlstate,message,hint,detail}
  admin_request = 9,   // frontend or cli → router, JSON {user, sql}
  admin_answer = 10,   // router → asker, JSON {columns:[{name,type}], rows:[[…]], tag}
  gather = 11,         // router → peer, JSON {what}
  gather_answer = 12,  // peer → router, JSON
  cancel = 13,         // worker → router → worker, 4 bytes pid + secret
  bye = 14,            // peer → router: draining, lend nothing more
  command = 15,        // both, JSON {command:"shutdown"|…}
  command_answer = 16, // router → peer, JSON {}
  lease = 20,          // relay lane, worker ↔ pooler: one lease message
  relay = 21,          // relay lane: bytes, credits and ends of leases' streams, in a batch
  move_request = 25,   // replicator → router, JSON: see snapshot::move_request
  move_answer = 26,    // router → replicator, JSON: snapshot::move_where or move_answer
  copy_open = 30,      // worker → replicator, copy::spec; `request` numbers the COPY from here on
  copy_batch = 31,     // worker → replicator, bytes of the client's input
  copy_cuts = 32,      // replicator → worker, copy::cut_list; one for each batch, in order
  copy_failed = 33,    // replicator → worker, copy::split_error: nothing more comes
  copy_close = 34,     // worker → replicator: forget it
};

// False for a kind of a newer version; whoever gets one answers with an error, never with silence.
bool known(bus::kind);

struct header {
  static constexpr std::uint32_t magic = 0x44454C53;  // "SLED"
  static constexpr std::uint16_t version = 1;
  static constexpr std::size_t size = 48;

  bus::kind kind{};
  std::uint16_t flags = 0;
  std::uint64_t request = 0;  // chosen by the asker, repeated by the answer
  std::uint64_t epoch = 0;
  std::uint64_t trace = 0;    // heartbeat and welcome: number of this start of the router
  std::uint32_t deadline_ms = 0;  // how long the asker will wait; 0: not an ask
};

struct envelope {
  bus::header header;
  byte_span payload;
};

inline constexpr std::size_t max_payload_bytes = 64u << 20;

void encode(const header& from, byte_span payload, std::string& to);  // appends
// The header alone, header::size bytes, for who places the payload behind it without a copy.
void encode_header(const header& from, std::size_t payload_bytes, std::uint8_t* to);
enum class envelope_error { truncated, bad_magic, bad_version, bad_length, too_large };
// Accepts a longer header than it knows and skips the rest.
tl::expected<envelope, envelope_error> decode(byte_span message);

}  // namespace pgsled::bus
