#pragma once
// suite_http: the series of all processes on openmetrics_port and the readiness of the suite on
// healthcheck_port. The HTTP threads put their question to the router's loop and wait, at most
// 800 ms, for what the processes answered. Life cycle: construct, start(), destroy after the loop
// has stopped; no request is left waiting for it longer than that.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/config/config.hpp"
#include "common/http/server.hpp"
#include "common/net/reactor.hpp"
#include "services/router/admin/gatherer.hpp"
#include "services/router/control/control.hpp"

namespace pgsled::router {

class suite_http {
 public:
  suite_http(net::reactor&, const control&, gatherer&, std::string own_instance);
  ~suite_http();
  // Empty, or why a port could not be opened. Ports are those of the configuration at start.
  std::string start(const config::general&);

 private:
  http::response collect(bool openmetrics);
  http::response health();

  net::reactor& loop_;
  const control& truth_;
  gatherer& questions_;
  std::string instance_;
  std::unique_ptr<http::server> metrics_, health_;
};

// What keeps the suite from being ready; empty: nothing. Pure.
std::vector<std::string> suite_problems(const control&, gathered&);

}  // namespace pgsled::router
