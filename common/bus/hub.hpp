#pragma once
// hub: the bound end of a bus, a ZeroMQ ROUTER socket. The router process has one for all peers;
// a pooler has one for the relay lane. Thread rule: its reactor's thread only.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/bus/peer.hpp"

namespace pgsled::bus {

struct hub_options {
  std::string endpoint;  // ipc://… or tcp://host:port (port * lets ZeroMQ choose)
  curve_keys curve;                            // secret_key empty: none
  std::vector<std::string> allowed_client_keys;  // with CURVE: any other key gets no further
  std::size_t high_water_mark = 10'000;
};

class hub {
 public:
  using receiver = std::function<void(const std::string& from, const envelope&)>;
  hub(net::reactor&, std::shared_ptr<context>, hub_options, receiver);
  ~hub();
  result<std::string> bind();  // the endpoint in effect, or why not
  // With CURVE: replaces the list for handshakes to come; connections that stand are kept.
  void allow(const std::vector<std::string>& client_keys);
  // False when that peer is unknown or its queue is full.
  bool send(const std::string& to, const header&, byte_span payload);

 private:
  struct state;
  std::shared_ptr<state> state_;
};

// The connecting end for the relay lane: a bare DEALER without hello or heartbeats.
class link {
 public:
  using receiver = std::function<void(const envelope&)>;
  // `connected` (may be empty) hears of every connection made and lost: what was sent before a
  // loss may not have arrived.
  link(net::reactor&, std::shared_ptr<context>, peer_options, receiver,
       std::function<void(bool connected)> connected = {});
  ~link();
  // Kept, up to 1024 messages, while no connection stands. False when a queue is full or the
  // endpoint is refused.
  bool send(const header&, byte_span payload);

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace pgsled::bus
