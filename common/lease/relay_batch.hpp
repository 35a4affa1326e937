#pragma once
// relay_batch: the payload of an envelope of kind `relay`: what one turn of a loop had to say about
// the byte streams of relayed leases (docs/formats/lease.md, "Relay lane"). Pure.

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/bytes.hpp"
#include "common/lease/messages.hpp"

namespace pgsled::lease {

enum class relay_what : std::uint8_t {
  data = 0,
  credit = 1,  // u32: bytes that the peer may send more
  end = 2,     // end of file
};

struct relay_part {
  lease_id lease = 0;
  lease::generation generation = 0;
  relay_what what = relay_what::data;
  byte_span bytes;  // of the payload
};

class relay_batch {
 public:
  static constexpr std::size_t part_header = 17;

  void add(lease_id, lease::generation, relay_what, byte_span bytes);
  void add_credit(lease_id, lease::generation, std::uint32_t bytes);
  bool empty() const { return bytes_.empty(); }
  std::size_t size() const { return bytes_.size(); }
  byte_span payload() const { return as_bytes(bytes_); }
  // Keeps a moderate allocation for the next turn.
  void clear();

 private:
  std::string bytes_;
};

// Reads a payload part by part. next() is nullopt at the end, and at what is malformed: good()
// tells.
class relay_reader {
 public:
  explicit relay_reader(byte_span payload) : rest_(payload) {}
  std::optional<relay_part> next();
  bool good() const { return good_; }

 private:
  byte_span rest_;
  bool good_ = true;
};

}  // namespace pgsled::lease
