#pragma once
// graveyard: keeps objects that may be on the call stack until the present turn of the loop is
// over, then destroys them. What is left goes with its owner. Thread rule: its reactor's.

#include <memory>
#include <utility>
#include <vector>

#include "common/net/reactor.hpp"

namespace pgsled::net {

class graveyard {
 public:
  explicit graveyard(reactor& loop) : loop_(loop) {}

  template <class T>
  void bury(std::unique_ptr<T> dead) {
    if (!dead) return;
    if (dead_->empty()) {
      loop_.defer([all = std::weak_ptr<bodies>(dead_)] {
        // Destroying one may bury another.
        if (const auto still = all.lock()) std::exchange(*still, {}).clear();
      });
    }
    dead_->push_back(std::shared_ptr<T>(std::move(dead)));
  }

 private:
  using bodies = std::vector<std::shared_ptr<void>>;
  reactor& loop_;
  std::shared_ptr<bodies> dead_ = std::make_shared<bodies>();
};

}  // namespace pgsled::net
