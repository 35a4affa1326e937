#pragma once
// budgets: divides each pool's size over the poolers that serve it, so that the sum of what any
// of them may be using never exceeds the size: a share shrinks at once, and what it gives free is
// handed on only when the shrunk pooler has acknowledged the epoch in which it shrank, less what it
// then still has in transactions, or has left. Pure. Thread rule: one thread.
//
//   assign(what is wanted, epoch)  → shares for the next snapshots
//   acknowledged(pooler, epoch)    → true: assign() may give more now

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace pgsled::router {

using pool_number = std::uint32_t;

struct pool_size {
  pool_number pool = 0;
  std::uint32_t size = 0, min_size = 0;
  std::vector<std::string> poolers;   // live, not draining, in a fixed order
};
struct pool_share {
  std::uint32_t budget = 0, min_size = 0;
  bool operator==(const pool_share&) const = default;
};
using shares = std::map<pool_number, std::map<std::string, pool_share>>;

// `size` over `count` by floor, the remainder beginning at `rotation` mod count.
std::vector<std::uint32_t> divide(std::uint32_t size, std::size_t count, std::uint32_t rotation);

class budgets {
 public:
  // Shares to send under `epoch`. Changes its memory of what was sent. Poolers that are neither
  // wanted nor dropped keep counting with what they may still use.
  shares assign(const std::vector<pool_size>& wanted, std::uint64_t epoch);
  // The snapshot of `epoch` was not sent to this pooler because nothing in it differed: what it
  // was sent before is in force. True when something may grow.
  bool acknowledged(const std::string& pooler, std::uint64_t epoch);
  // The pools of which a pooler has more connections than its share, and how many: leases that
  // have not come back. All of them; stands until it is said anew. True when something may grow.
  bool over(const std::string& pooler,
            const std::vector<std::pair<pool_number, std::uint32_t>>& has);
  // A pooler is gone (process ended or silent). True when something may grow.
  bool dropped(const std::string& pooler);
  // A pooler that an earlier router knew says what it has, more than its share perhaps: counts as
  // sent and acknowledged.
  void adopt(const std::string& pooler,
             const std::vector<std::pair<pool_number, std::uint32_t>>& has);
  // While set, nobody's share grows in a pool of which some pooler has adopted one: others that
  // have some, too, may not have come yet.
  void hold_growth(bool hold) { hold_ = hold; }
  bool anything_pending() const { return pending_; }

 private:
  struct holding {
    std::uint32_t sent = 0;     // newest value
    std::uint32_t bound = 0;    // most it may be using: newest and everything not acknowledged
    std::uint32_t over = 0;     // connections it has said to have beyond its share
    bool adopted = false;
    std::uint32_t most() const { return std::max(bound, over); }
    bool nothing() const { return most() == 0 && unacknowledged.empty(); }
    std::vector<std::pair<std::uint64_t, std::uint32_t>> unacknowledged;  // epoch, value
  };
  using pool_holdings = std::map<std::string, holding>;
  static void settle(holding&, std::uint64_t acknowledged);
  std::uint32_t grant(pool_holdings&, const std::string& pooler, std::uint32_t wanted,
                      std::uint32_t size, std::uint64_t epoch);

  std::map<pool_number, pool_holdings> pools_;
  bool hold_ = false, pending_ = false;
};

}  // namespace pgsled::router
