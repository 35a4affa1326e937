#pragma once
// transport: the stream to a server, plain or TLS, and dial: how one comes about. Sequence:
// resolve → connect → (SSLRequest → one byte → TLS handshake) → done. Every address of the host
// is tried in order. Thread rule: the reactor's.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "common/net/tls.hpp"
#include "services/pooler/servers/resolver.hpp"

namespace pgsled::pooler {

struct transport {
  using io = net::tls_stream::io;
  net::unique_fd fd;
  std::optional<net::tls_stream> tls;
  address peer;

  // As tls_stream's; on a plain socket error() is errno's text of the last failure.
  io read(std::span<std::uint8_t> into, std::size_t& n);
  io write(std::span<const std::uint8_t> from, std::size_t& n);
  bool pending() const { return tls && tls->pending(); }
  std::string error() const;
  // Nothing to read and the peer has ended the stream. Only a plain socket can tell.
  bool ended() const;
  int last_errno = 0;
};

struct dial_target {
  std::string host;
  std::uint16_t port = 5432;
  std::string tls_verify = "disabled";  // disabled, prefer, verify_ca, verify_full
  std::shared_ptr<net::tls_context> tls;  // not needed when disabled
  net::tcp_options tcp;
  std::string where() const;  // for messages: host:port
};

// One attempt. Life cycle: construct, start(), then `done` once unless destroyed before; `done` may
// destroy it. It has no time limit of its own.
class dial final : public net::watcher {
 public:
  using finished = std::function<void(result<transport>)>;
  dial(net::reactor&, dial_target, finished);
  ~dial();
  dial(const dial&) = delete;
  dial& operator=(const dial&) = delete;
  void start(resolver&);
  void start(const address&);  // this one only

 private:
  enum class stage { waiting, connecting, asking, answering, handshaking, over };
  void on_events(std::uint32_t events) override;
  void next_address();
  void connected();
  void ask_tls();
  void read_answer();
  void handshake();
  void failed_here(const std::string& why);
  void finish(result<transport>);
  void watch(std::uint32_t events) { reactor_.watch(transport_.fd.get(), events, this); }
  bool wants_tls() const;

  net::reactor& reactor_;
  dial_target target_;
  finished done_;
  std::vector<address> addresses_;
  std::size_t next_ = 0;
  stage stage_ = stage::waiting;
  transport transport_;
  bool plain_only_ = false;  // `prefer`, and TLS did not come about at this address
  std::string why_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace pgsled::pooler
