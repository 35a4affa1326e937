#pragma once
// How a lent connection reaches its holder. holder_link is the message channel to one holder, on
// either lane; carrier moves the bytes of one lent connection where the descriptor itself does not
// travel. Thread rule: the reactor's.

#include <memory>

#include "common/lease/messages.hpp"
#include "services/pooler/servers/transport.hpp"

namespace pgsled::pooler {

class carrier {
 public:
  virtual ~carrier() = default;
  // Begins to copy for a new generation; the transport outlives it or is stopped before.
  virtual void start(transport&, lease::generation) = 0;
  // Nothing is under way inside: the connection may be lent on.
  virtual bool quiet() const = 0;
  // Copies no more and touches the transport no more.
  virtual void stop() = 0;
  // What the holder gets with the grant; -1: nothing.
  virtual int descriptor() const { return -1; }
};

class holder_link {
 public:
  virtual ~holder_link() = default;
  // False: the holder cannot keep up or is gone; the caller drops it.
  virtual bool send(const lease::message&, int fd = -1) = 0;
  // The pooler has dropped the holder: the channel is closed and nothing is called any more.
  virtual void end() = 0;
  // Not null where bytes go through the channel itself (relay lane).
  virtual std::unique_ptr<carrier> relay(lease::lease_id) { return nullptr; }
  virtual bool relays() const { return false; }
};

}  // namespace pgsled::pooler
