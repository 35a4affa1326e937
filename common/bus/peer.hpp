#pragma once
// peer: a process's (or frontend worker's) link to the router. Says hello, repeats it whenever
// the router is a new one, keeps heartbeats, hands snapshots up, and matches answers to asks.
// Life cycle: construct, start(), destroy. Thread rule: its reactor's thread only.

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.hpp"
#include "common/bus/envelope.hpp"
#include "common/net/reactor.hpp"

namespace pgsled::bus {

struct curve_keys {  // all empty: no CURVE. Z85 text, 40 characters each.
  std::string public_key, secret_key, server_public_key;
};

// Why this endpoint may not be used, empty if it may: tcp needs CURVE keys, and only ipc, tcp and
// inproc are spoken.
std::string endpoint_problem(const std::string& endpoint, const curve_keys&);
// A fresh pair, Z85; throws std::runtime_error when libzmq was built without CURVE.
curve_keys make_curve_pair();
std::string curve_public(const std::string& secret_key);  // of a Z85 secret; empty if malformed

class context;  // one ZeroMQ context a process
std::shared_ptr<context> make_context();

struct peer_options {
  std::string endpoint;  // of the router
  std::string instance;  // routing id, unique in the suite
  curve_keys curve;
  std::chrono::milliseconds heartbeat{1000};
  std::size_t high_water_mark = 10'000;  // messages, each direction
};

class peer {
 public:
  struct callbacks {
    std::function<std::string()> hello;                        // JSON, asked at every (re)connect
    std::function<void(byte_span json, std::uint64_t epoch)> snapshot;  // welcome and config
    std::function<void(const envelope&)> message;              // any other kind
    std::function<void(bool connected)> link;                  // router there / not heard for 3 s
  };
  peer(net::reactor&, std::shared_ptr<context>, peer_options, callbacks);
  ~peer();
  void start();  // throws std::runtime_error when the endpoint is refused or malformed

  // Asks wait for a router that is not there yet or again; plan requests also survive its restart.
  // Nothing is answered any more once the peer is destroyed. Answer or error arrives exactly once:
  // 57P03 when the router is not there by the deadline, 53400 when more than the bound of asks is
  // under way.
  using answer = std::function<void(result<envelope>)>;
  void ask(kind, byte_span payload, std::chrono::milliseconds deadline, answer);
  // False when it was not taken: no connection, or the queue is full.
  bool tell(kind, byte_span payload, std::uint64_t request = 0);
  // `payload` goes with it; it is repeated until it has been taken.
  void acknowledge(std::uint64_t epoch, std::string payload = {});
  bool connected() const;
  // The router has answered a heartbeat that was sent less than three seconds ago, so it cannot
  // have given this peer up yet: nothing that needs everybody's consent happens without it. By the
  // clock, not by the loop's time: a process that slept finds out before it does anything.
  bool present() const;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace pgsled::bus
