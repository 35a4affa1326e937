#pragma once
// server_stream: the bytes of one lease as its server object sees them, whatever lane they take: a
// socket (socket and pumped lanes), or a flow of the relay line. Thread rule: its worker's.

#include <cstdint>
#include <memory>
#include <string_view>

#include "common/base/bytes.hpp"
#include "common/net/socket.hpp"

namespace pgsled::frontend {

class worker;

// What the owner hears. Always from the loop, never from inside a call to the stream; the owner may
// destroy the stream within any of them.
class server_stream_user {
 public:
  virtual void stream_bytes(byte_span bytes) = 0;  // valid during the call
  virtual void stream_writable() = 0;
  virtual void stream_ended() = 0;                 // end of file or broken: nothing comes any more

 protected:
  ~server_stream_user() = default;
};

class server_stream {
 public:
  virtual ~server_stream() = default;
  // Once, before anything else; the user outlives the stream.
  virtual void start(server_stream_user&) = 0;
  // How many bytes were taken; fewer than given: wait for stream_writable. -1: broken, of which
  // stream_ended tells later.
  virtual std::ptrdiff_t send(std::string_view bytes) = 0;
  // What is wanted to be heard of.
  virtual void interest(bool bytes, bool writable) = 0;
  // Ends it, in both directions: stream_ended follows what has come already.
  virtual void cut() = 0;
  // Whether the bytes go by the pooler's hands: they stand still when it does.
  virtual bool pumped() const = 0;
};

std::unique_ptr<server_stream> make_socket_stream(worker&, net::unique_fd fd);

}  // namespace pgsled::frontend
