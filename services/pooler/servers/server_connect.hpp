#pragma once
// Drivers for what happens on a server connection before and beside its life in the pool:
// server_opening dials and logs in; server_cancel carries one CancelRequest. Thread rule: the
// reactor's. Life cycle: construct, start(), `done` once unless destroyed before, perhaps from
// inside start(). `done` must not destroy the object: put that off with reactor::defer.

#include "common/auth/server_login.hpp"
#include "services/pooler/servers/transport.hpp"

namespace pgsled::pooler {

struct opened {
  pooler::transport transport;
  std::uint32_t pid = 0;
  std::string secret;
  std::vector<std::pair<std::string, std::string>> parameters;
  std::string unread;  // after the first ReadyForQuery
};

class server_opening final : public net::watcher {
 public:
  using finished = std::function<void(result<opened>)>;
  server_opening(net::reactor&, dial_target, auth::server_identity, net::duration timeout,
                 finished);
  ~server_opening();
  server_opening(const server_opening&) = delete;
  server_opening& operator=(const server_opening&) = delete;
  void start(resolver&);

 private:
  void on_events(std::uint32_t events) override;
  void dialled(result<pooler::transport>);
  void read_some();
  void write_some();
  void watch(std::uint32_t events) {
    reactor_.watch(result_.transport.fd.get(), events, this);
  }
  void finish(result<opened>);

  net::reactor& reactor_;
  dial_target target_;
  auth::server_identity identity_;
  net::duration timeout_;
  finished done_;
  net::reactor::timer_id timer_ = 0;
  pooler::dial dial_;
  std::optional<auth::server_login> login_;
  opened result_;
  std::string in_, out_;
};

// `done` is called when the server has closed the connection, or could not be reached, or `limit`
// has passed. `sure`: nothing of this cancel can hit a later query. Not so where it was sent and no
// end was seen: a server that is held up reads it when it goes on.
class server_cancel final : public net::watcher {
 public:
  using finished = std::function<void(bool sure)>;
  server_cancel(net::reactor&, dial_target, std::uint32_t pid, const std::string& secret,
                net::duration limit, finished);
  ~server_cancel();
  server_cancel(const server_cancel&) = delete;
  server_cancel& operator=(const server_cancel&) = delete;
  void start(const address& where);

 private:
  void on_events(std::uint32_t events) override;
  void advance();
  void watch(std::uint32_t events) { reactor_.watch(transport_.fd.get(), events, this); }
  void finish(bool sure);

  net::reactor& reactor_;
  net::duration limit_;
  finished done_;
  net::reactor::timer_id timer_ = 0;
  pooler::dial dial_;
  pooler::transport transport_;
  std::string out_;
  bool sent_ = false;
};

}  // namespace pgsled::pooler
