#pragma once
// resolver: host names to addresses without blocking the reactor. Numeric addresses and socket
// paths are answered at once, names by helper threads that run getaddrinfo. Thread rule: the
// reactor's thread; the helpers only post to it. Look-ups of one host that overlap are one.
// A server that runs on the same machine, but in a container of its own, may share the directory
// of its socket: what is mounted as <sockets>/<host> is gone through instead of the network.

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/net/reactor.hpp"

namespace pgsled::pooler {

struct address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

class resolver {
 public:
  // Called exactly once, on the reactor's thread, perhaps before resolve() returns; not any more
  // after the resolver is gone. The list is never empty.
  using answer = std::function<void(result<std::vector<address>>)>;
  // `sockets`: a directory, or empty.
  resolver(net::reactor&, std::string sockets);
  ~resolver();  // does not wait for the helpers
  void resolve(const std::string& host, std::uint16_t port, answer);

 private:
  struct shared;
  std::string sockets_;
  std::shared_ptr<shared> shared_;
};

}  // namespace pgsled::pooler
