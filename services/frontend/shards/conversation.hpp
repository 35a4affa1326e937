#pragma once
// conversation: what the legs of a transaction over shards are asked one after the other, and what
// is made of their answers (shard_transaction::converse). Implemented by pure machines.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"
#include "common/session/ledger.hpp"

namespace pgsled::frontend {

class conversation {
 public:
  // What one leg is sent, and what its server owes for it, in order.
  struct speech {
    std::string bytes;
    std::vector<session::owed> owed;
  };
  // Bytes of one message that may have to be kept until it is whole; more: the server is dropped.
  static constexpr std::size_t max_message = 16u << 20;

  virtual ~conversation() = default;
  virtual speech say(std::uint32_t shard) = 0;
  // A message of that leg, ErrorResponse and ReadyForQuery included. Valid during the call.
  virtual void heard(char type, byte_span body) = 0;
  // It has said all. An error ends the conversation, as one of the server does.
  virtual std::optional<pg_error> answered(std::uint32_t shard) = 0;
};

}  // namespace pgsled::frontend
