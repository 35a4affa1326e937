#pragma once
// server_connection: one logged-in connection while the pooler has it. Parked it watches the
// socket: asynchronous messages go into its state, end of file or FATAL is reported. It can run one
// statement of its own (check, clean). While it is lent it is not registered with the reactor, and
// somebody else reads the transport. Thread rule: the reactor's.

#include "common/lease/messages.hpp"
#include "services/pooler/servers/server_connect.hpp"

namespace pgsled::pooler {

class server_connection final : public net::watcher {
 public:
  // The connection must not be destroyed from inside these: put it off with reactor::defer.
  struct callbacks {
    std::function<void(const std::string& why)> lost;  // only while parked
    std::function<void(bool good)> ran;                // once after each run()
  };
  server_connection(net::reactor&, opened, callbacks);
  ~server_connection();
  server_connection(const server_connection&) = delete;
  server_connection& operator=(const server_connection&) = delete;

  void park();
  void unpark();
  // The statement's rows are thrown away. `good`: ReadyForQuery came in time, idle, without an
  // error. A DISCARD ALL that went well also clears the state.
  void run(std::string_view sql, net::duration timeout);
  // Says Terminate if the socket takes it, and nothing more after that.
  void terminate();
  // Makes the connection useless for whoever still has a copy of its descriptor.
  void shut_down();
  // After shut_down or terminate: the server has not closed its side yet, so it may still be at
  // work. False where the system cannot tell (Unix sockets).
  bool server_still_there() const;

  pooler::transport& transport() { return transport_; }
  const address& peer() const { return transport_.peer; }
  bool encrypted() const { return transport_.tls.has_value(); }
  std::uint32_t pid() const { return pid_; }
  const std::string& secret() const { return secret_; }
  // As the server has reported them, to us or to the last holder.
  const lease::text_pairs& parameters() const { return parameters_; }
  void set_parameters(lease::text_pairs known) { parameters_ = std::move(known); }
  lease::connection_state& state() { return state_; }

 private:
  void on_events(std::uint32_t events) override;
  void read_all();
  bool take(char type, byte_span body);  // false: the connection is of no further use
  void write_some();
  void watch(std::uint32_t events) { reactor_.watch(transport_.fd.get(), events, this); }
  bool watched() const { return reactor_.watches(transport_.fd.get(), this); }
  void fail(const std::string& why);
  void end_run(bool good);

  net::reactor& reactor_;
  pooler::transport transport_;
  callbacks events_;
  std::uint32_t pid_ = 0;
  std::string secret_;
  lease::text_pairs parameters_;
  lease::connection_state state_;
  std::string in_, out_;
  bool running_ = false, discarding_ = false, error_seen_ = false;
  net::reactor::timer_id timer_ = 0;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace pgsled::pooler
