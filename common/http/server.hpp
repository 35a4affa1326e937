#pragma once
// A small HTTP/1.1 server for /metrics, /healthz and /readyz, on Boost.Beast and its own thread,
// so that a scrape never waits for the data path nor the other way round. Bounded: 64 connections,
// 8 KiB of request, 5 s each.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.hpp"

namespace pgsled::http {

struct response {
  unsigned status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};
struct request {
  std::string path, accept;
};

class server {
 public:
  using handler = std::function<response(const request&)>;  // called on the server's thread
  server();
  ~server();  // stops and joins
  // `address` is HOST:PORT, port 0 lets the kernel choose. Returns the address in effect.
  result<std::string> start(const std::string& address, handler);

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::http
