#pragma once
// channel: one ZeroMQ socket in a reactor. ZMQ_FD is edge-triggered and says only "look": after
// every send and receive the socket may have more to say without a new edge, so the channel reads
// until EAGAIN and looks again before the loop waits. At most 256 messages are handled per turn;
// the rest continues in the next, so that other descriptors get theirs. Internal to common/bus.
// Thread rule: its reactor's thread. Owners may close it from inside a callback.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "common/base/bytes.hpp"
#include "common/bus/context.hpp"
#include "common/bus/envelope.hpp"
#include "common/bus/meter.hpp"
#include "common/bus/peer.hpp"
#include "common/net/reactor.hpp"

namespace pgsled::bus {

class channel final : public net::watcher, public std::enable_shared_from_this<channel> {
 public:
  static constexpr std::size_t max_frames = 2;
  static constexpr int messages_per_turn = 256;
  using handler = std::function<void(std::span<const byte_span> frames)>;

  // `type` is ZMQ_ROUTER, ZMQ_DEALER or ZMQ_PAIR. Throws std::runtime_error.
  static std::shared_ptr<channel> make(net::reactor&, std::shared_ptr<context>, int type, handler);
  channel(net::reactor&, std::shared_ptr<context>, int type, handler);
  ~channel();

  void* socket() const { return socket_; }
  void set(int option, int value);
  void set(int option, const std::string& value);
  std::string get_text(int option) const;
  // Limits, linger and keys, the same for every kind of socket.
  void set_common(const std::string& endpoint, std::size_t high_water_mark);
  void set_curve_client(const curve_keys&);

  void count_as(role which) { meter_ = &meter_of(which); }
  // For the owner, when a message is no envelope: counts it, and names the sender in the log, at
  // most once in ten seconds.
  void note_malformed(std::string_view from);

  void watch();  // registers with the reactor; after all options are set
  // `to` is the routing id, empty for a DEALER. 0 or errno (EAGAIN: full, EHOSTUNREACH: unknown).
  int send(std::string_view to, const header&, byte_span payload);
  void close();

  // Connections made and lost, by the socket's monitor. After `refused` libzmq does not try
  // again: the owner makes a new channel. Before connecting or binding.
  enum class connection { made, lost, refused };
  using connection_handler = std::function<void(connection)>;
  void monitor(connection_handler);

 private:
  void on_events(std::uint32_t) override;
  void pump();
  void look_again();
  int send_uncounted(std::string_view to, const header&, byte_span payload);
  enum class received { one, none, malformed };
  received receive_one();

  net::reactor& reactor_;
  std::shared_ptr<context> context_;
  handler handler_;
  std::shared_ptr<channel> monitor_;
  void* socket_;
  int fd_ = -1;
  meter* meter_ = nullptr;
  net::time_point quiet_until_{};
  bool watching_ = false, looking_ = false;
};

}  // namespace pgsled::bus
