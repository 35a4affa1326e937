#pragma once
// busy_poll: before which of its waits a loop should look for events for a while instead of going
// to sleep at once. To wake a sleeping thread costs more than many a query; to look in vain costs a
// processor. So it goes by what looking has brought: each time in vain doubles the number of waits
// before which it is not tried again, each find halves it (as the kernel's haltpoll does for idle
// processors of virtual machines). Knows no clock and no descriptor.

#include <algorithm>
#include <cstdint>

namespace pgsled::net {

class busy_poll {
 public:
  static constexpr std::uint32_t most_left_out = 63;

  // Before each wait: whether to look first. The caller says afterwards which of the two it was.
  bool due() {
    if (to_leave_out_ == 0) return true;
    --to_leave_out_;
    return false;
  }
  void found() {
    ++tried_;
    left_out_ /= 2;
  }
  void in_vain() {
    ++tried_;
    ++in_vain_;
    to_leave_out_ = left_out_ = std::min(2 * left_out_ + 1, most_left_out);
  }

  std::uint64_t tried() const { return tried_; }
  std::uint64_t tried_in_vain() const { return in_vain_; }

 private:
  std::uint32_t to_leave_out_ = 0, left_out_ = 0;
  std::uint64_t tried_ = 0, in_vain_ = 0;
};

}  // namespace pgsled::net
