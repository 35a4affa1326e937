#pragma once
// pump: the pumped lane. The holder gets one end of a socket pair; this copies between the other
// end and the server's transport, in both directions, with one bounded buffer each. A full buffer
// stops reading, so back-pressure passes through. End of file travels on after the bytes before
// it. The pair stays for the next lend as long as nothing is left in it.

#include <cstdint>
#include <memory>

#include "common/net/reactor.hpp"
#include "common/net/socket.hpp"
#include "services/pooler/lanes/lane.hpp"

namespace pgsled::pooler {

class pump final : public carrier {
 public:
  explicit pump(net::reactor&);
  ~pump() override;
  void start(transport&, lease::generation) override;
  bool quiet() const override;
  void stop() override;
  int descriptor() const override { return theirs_.get(); }

 private:
  static constexpr std::size_t capacity = 64 * 1024;
  struct pipe {
    std::unique_ptr<std::uint8_t[]> bytes;
    std::size_t begin = 0, end = 0;
    bool eof = false;       // the source has ended
    bool eof_told = false;  // and the sink knows
    bool empty() const { return begin == end; }
    std::span<std::uint8_t> room();
    std::span<const std::uint8_t> content() const { return {bytes.get() + begin, end - begin}; }
    void taken(std::size_t n);
  };
  struct side final : net::watcher {
    pump* owner = nullptr;
    int fd = -1;
    void on_events(std::uint32_t events) override { owner->ready(*this, events); }
  };

  void ready(side&, std::uint32_t events);
  void move_down();  // server → holder
  void move_up();    // holder → server
  bool fill_down();
  bool drain_down();
  bool drain_up();
  void later();
  void set_interest();

  net::reactor& reactor_;
  net::unique_fd theirs_, ours_;
  transport* server_ = nullptr;
  pipe down_, up_;
  side server_side_, holder_side_;
  std::shared_ptr<int> alive_ = std::make_shared<int>();
  bool read_wants_write_ = false, write_wants_read_ = false;
};

}  // namespace pgsled::pooler
