#pragma once
// present_statements: the prepared statements of one server connection, by the name they have
// there, and which of them was used how long ago. Pure. Thread rule: its worker's.

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/session/ledger.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

class present_statements {
 public:
  bool contains(const std::string& name) const { return known_.contains(name); }
  // As contains(); one that is there counts as used now.
  bool use(const std::string& name) {
    const auto found = known_.find(name);
    if (found == known_.end()) return false;
    found->second.used = ++uses_;
    return true;
  }
  // `what` is null for one that came with the lease. `batch`: the one it is prepared in, if an
  // error of something else there may make the server skip it.
  static constexpr std::uint64_t surely = ~std::uint64_t{0};
  void add(const std::string& name, statement_ref what, std::uint64_t batch = surely) {
    known_[name] = {std::move(what), ++uses_, batch};
  }
  // It has been prepared in an earlier batch that may still turn out to have been skipped.
  bool in_doubt(const std::string& name, const session::ledger& replies) const {
    const auto found = known_.find(name);
    return found != known_.end() && replies.in_doubt(found->second.batch);
  }
  void remove(const statement* what) {
    std::erase_if(known_, [&](const auto& one) { return one.second.what.get() == what; });
  }
  // Names of the `count` that were not used for the longest time; they are no longer known. Looks
  // at all of them: to be asked for several at a time.
  std::vector<std::string> take_oldest(std::size_t count) {
    std::vector<std::pair<std::uint64_t, const std::string*>> order;
    order.reserve(known_.size());
    for (const auto& [name, one] : known_) order.emplace_back(one.used, &name);
    count = std::min(count, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count),
                      order.end());
    std::vector<std::string> names;
    names.reserve(count);
    for (std::size_t i = 0; i < count; ++i) names.push_back(*order[i].second);
    for (const auto& name : names) known_.erase(name);
    return names;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    all.reserve(known_.size());
    for (const auto& [name, one] : known_) all.push_back(name);
    return all;
  }
  std::size_t size() const { return known_.size(); }
  void clear() { known_.clear(); }

 private:
  struct entry {
    statement_ref what;
    std::uint64_t used = 0, batch = surely;
  };
  std::unordered_map<std::string, entry> known_;
  std::uint64_t uses_ = 0;
};

}  // namespace pgsled::frontend
