#pragma once
// copying: which part of which table is copied next, and how fast. Pure; time is given in
// microseconds. Thread rule: one thread at a time (the driver has a lock).

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace pgsled::moving {

// A part of one source's table: blocks [from, to), without `to` all that follow. A table that was
// not cut has from = 0 and no `to`.
struct copy_part {
  std::uint32_t source = 0;
  std::size_t table = 0;               // its place among the source's
  std::uint64_t from = 0;
  std::optional<std::uint64_t> to;
  bool operator==(const copy_part&) const = default;
};

struct table_size {
  std::uint32_t source = 0;
  std::size_t table = 0;
  std::uint64_t blocks = 0;
};

// Hands each part out once: large tables first, and to each worker parts of the source that it is
// connected to as long as there are any.
class copy_queue {
 public:
  copy_queue(std::span<const table_size>, std::uint64_t blocks_in_part);

  // None when all were given out.
  std::optional<copy_part> take(std::uint32_t preferred_source);
  std::size_t left() const { return parts_.size(); }

 private:
  std::vector<copy_part> parts_;       // the next one last
};

// So many bytes a second over a second or more; 0: no limit.
class copy_rate {
 public:
  explicit copy_rate(std::int64_t bytes_per_second) : rate_(bytes_per_second) {}

  // Counts `bytes` that are copied now; gives how many microseconds to wait before more are.
  std::int64_t take(std::int64_t bytes, std::int64_t now);

 private:
  std::int64_t rate_;
  std::int64_t paid_until_ = 0;        // all that was taken is as much as until then may be
};

}  // namespace pgsled::moving
