#pragma once
// stats_window: what the counters of SHOW STATS have grown by in the last whole stats_period, for
// its averages. Pure; the driver samples and tells the time (milliseconds). A process that did not
// answer is counted with its next sample; one that is new counts from its beginning.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/router/admin/table.hpp"

namespace pgsled::router {

class stats_window {
 public:
  // When the next sample is to be taken; `period` of 0 or less: never, and there are no averages.
  bool due(std::int64_t now, std::int64_t period) const { return period > 0 && now >= next_; }
  void taking(std::int64_t now, std::int64_t period) { next_ = now + period; }
  // The first one has nothing to compare with: no averages before the second.
  void sample(const std::vector<gathered_row>& rows, std::int64_t now);

  std::uint64_t grown(std::uint32_t pool, std::string_view counter) const;
  // Growth a second.
  std::uint64_t rate(std::uint32_t pool, std::string_view counter) const;

 private:
  using counters = std::map<std::string, std::uint64_t, std::less<>>;
  struct kept {
    counters last;
    unsigned missed = 0;   // samples
  };
  std::map<std::pair<std::string, std::uint32_t>, kept> rows_;   // by instance and pool
  std::map<std::uint32_t, counters> grown_;
  std::int64_t next_ = 0, taken_at_ = 0, length_ = 0;
  static constexpr unsigned max_missed = 3;
  bool first_ = true;
};

}  // namespace pgsled::router
