#pragma once
// TLS over a non-blocking descriptor, by OpenSSL 3: the server role towards clients, the client
// role towards PostgreSQL. The stream owns neither the descriptor nor its registration with an
// event loop. Life cycle: construct, handshake() until ok, read/write, shutdown(), destroy.
// OpenSSL writes with write(2): the process must ignore SIGPIPE, as app::process does.
// Thread rule: a context may be shared by threads; a stream belongs to one thread at a time.

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/result.hpp"

namespace pgsled::net {

// Certificates, keys and rules of one role; TLS 1.2 or newer. A reload makes a new one, and
// streams keep theirs alive.
class tls_context {
 public:
  // Offers ALPN "postgresql" to clients that ask for it. PEM files. Errors: F0000 naming the file.
  static result<std::shared_ptr<tls_context>> server(const std::string& certificate_path,
                                                     const std::string& key_path);
  // `verify` is disabled, prefer, verify_ca or verify_full; only the last two look at the server's
  // certificate (an empty `ca_path` then means the system's store). Certificate and key may be
  // empty: none is shown. Whether TLS is tried at all is the caller's business.
  static result<std::shared_ptr<tls_context>> client(const std::string& verify,
                                                     const std::string& ca_path,
                                                     const std::string& certificate_path,
                                                     const std::string& key_path);
  ~tls_context();
  tls_context(const tls_context&) = delete;
  tls_context& operator=(const tls_context&) = delete;

 private:
  friend class tls_stream;
  struct state;
  explicit tls_context(std::unique_ptr<state>);
  std::unique_ptr<state> state_;
};

class tls_stream {
 public:
  // The role is the context's. `host` is the name or address that verify_full compares with and
  // that is sent as SNI when it is a name; servers leave it empty.
  tls_stream(std::shared_ptr<tls_context>, int fd, std::string host = {});
  ~tls_stream();
  tls_stream(tls_stream&&) noexcept;
  tls_stream& operator=(tls_stream&&) noexcept;

  // want_read / want_write: call again, with the same arguments, when the descriptor is so ready;
  // a read may want to write and the other way round. closed: the peer ended the stream.
  // failed: error() says why, and the stream is of no further use.
  enum class io { ok, want_read, want_write, closed, failed };
  io handshake();
  io read(std::span<std::uint8_t> into, std::size_t& n);
  // May take less than all; after want_* the next write must begin with the same bytes, though
  // the buffer may have moved.
  io write(std::span<const std::uint8_t> from, std::size_t& n);
  // Sends close_notify if the descriptor takes it; never waits.
  void shutdown();

  // Bytes are decrypted and waiting: readiness of the descriptor will not announce them.
  bool pending() const;
  // tls-server-end-point (RFC 5929) of the server's certificate, in either role; empty when the
  // handshake has not ended or the certificate's signature has no hash of its own.
  std::string end_point_hash() const;
  // The protocol agreed by ALPN, "" if none. Direct TLS requires "postgresql".
  std::string alpn() const;
  std::string version() const;  // "TLSv1.3"
  std::string cipher() const;
  std::string error() const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::net
