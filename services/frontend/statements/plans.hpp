#pragma once
// plan_cache: plans by the key of design "Plans and epochs": database, user, search_path, parameter
// types and shape. Bounded in bytes, least recently used goes first. Everything made under an
// older epoch is forgotten at once. Thread rule: one worker.

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/plan/plan.hpp"
#include "services/frontend/probe.hpp"

namespace pgsled::frontend {

struct cached_plan {
  std::uint64_t epoch = 0;
  std::string scope;  // database, user, search_path: what besides the text it depends on
  plan::plan plan;
};
using plan_ref = std::shared_ptr<const cached_plan>;

class plan_cache {
 public:
  explicit plan_cache(probe& counters) : probe_(counters) {}
  void set_limit(std::size_t bytes) { limit_ = bytes; }
  // Null when unknown.
  plan_ref find(std::string_view key, std::uint64_t epoch);
  void insert(std::string key, plan_ref plan);
  void clear();

 private:
  struct item {
    std::string key;
    plan_ref plan;
  };
  std::size_t bytes_of(const item& i) const {
    return sizeof i + i.key.size() * 2 + sizeof(cached_plan) + 128;
  }
  void erase(std::list<item>::iterator);

  probe& probe_;
  std::size_t limit_ = 16u << 20, bytes_ = 0;
  std::list<item> recent_;
  std::unordered_map<std::string_view, std::list<item>::iterator> index_;
};

}  // namespace pgsled::frontend
