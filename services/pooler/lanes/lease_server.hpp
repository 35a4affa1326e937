#pragma once
// lease_server: the socket lane's end of the pooler. Listens on a SOCK_SEQPACKET Unix socket; each
// connection is one holder. Thread rule: the reactor's. Bounds: packets of at most
// lease::max_message_bytes, a queue of `queue_bound` packets for a holder that does not read,
// beyond which it is dropped.

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>

#include "common/net/accept_pause.hpp"
#include "common/net/graveyard.hpp"
#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "services/pooler/pools/lender.hpp"

namespace pgsled::pooler {

class lease_server final : public net::watcher {
 public:
  static constexpr std::size_t queue_bound = 1024, holder_bound = 4096;
  lease_server(net::reactor&, lender&, std::string path);
  ~lease_server();  // removes the socket file
  lease_server(const lease_server&) = delete;
  lease_server& operator=(const lease_server&) = delete;
  result<bool> start();

 private:
  class channel;
  void on_events(std::uint32_t events) override;
  void remove(channel*);

  net::reactor& reactor_;
  lender& lender_;
  std::string path_;
  net::unique_fd listener_;
  net::accept_pause pause_;
  std::unordered_map<channel*, std::unique_ptr<channel>> channels_;
  net::graveyard dead_;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace pgsled::pooler
