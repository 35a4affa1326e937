#pragma once
// relay_server: the relay lane's end of the pooler. Holders reach it over ZeroMQ; lease messages
// and the bytes of lent connections share one channel each (docs/formats/lease.md). Thread rule:
// the reactor's. Bounds: credit of `window` bytes per lease and direction; a holder not heard for
// `silence` is dropped. A holder that is dropped may be asleep and go on later: channels have
// numbers, by which it finds out.

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/bus/hub.hpp"
#include "common/net/graveyard.hpp"
#include "services/pooler/pools/lender.hpp"

namespace pgsled::pooler {

class relay_server {
 public:
  static constexpr std::size_t window = 256 * 1024, holder_bound = 4096;
  static constexpr auto silence = std::chrono::seconds(5);

  relay_server(net::reactor&, lender&, std::shared_ptr<bus::context>, std::string endpoint,
               bus::curve_keys);
  ~relay_server();
  relay_server(const relay_server&) = delete;
  relay_server& operator=(const relay_server&) = delete;
  result<std::string> start();  // the endpoint in effect
  void allow(const std::vector<std::string>& client_keys);

 private:
  class channel;
  class flow;
  void receive(const std::string& from, const bus::envelope&);
  void receive_parts(channel&, byte_span payload);
  channel* find(const std::string& name, std::uint64_t incarnation);
  channel* open(const std::string& name, std::uint64_t incarnation);
  void tell_ended(const std::string& name, std::uint64_t incarnation);
  void flush_later(const std::string& name);
  void sweep();
  void remove(const std::string& name);

  net::reactor& reactor_;
  lender& lender_;
  std::unordered_map<std::string, std::unique_ptr<channel>> channels_;
  std::uint64_t last_channel_ = 0;
  net::graveyard dead_;
  std::vector<std::string> to_flush_;  // channels with a batch, by name
  net::reactor::timer_id timer_ = 0;
  net::time_point swept_ = net::clock::now();
  std::shared_ptr<int> alive_ = std::make_shared<int>();
  bus::hub hub_;
};

}  // namespace pgsled::pooler
