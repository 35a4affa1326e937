#include "services/frontend/statements/plans.hpp"

namespace pgsled::frontend {

plan_ref plan_cache::find(std::string_view key, std::uint64_t epoch) {
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  if (found->second->plan->epoch != epoch) {
    erase(found->second);
    return nullptr;
  }
  recent_.splice(recent_.begin(), recent_, found->second);
  return found->second->plan;
}

void plan_cache::insert(std::string key, plan_ref plan) {
  if (const auto known = index_.find(key); known != index_.end()) erase(known->second);
  recent_.push_front({std::move(key), std::move(plan)});
  index_.emplace(recent_.front().key, recent_.begin());
  bytes_ += bytes_of(recent_.front());
  while (bytes_ > limit_ && recent_.size() > 1) {
    erase(std::prev(recent_.end()));
    probe_.plan_cache_evictions.add();
  }
  probe_.plan_cache_bytes.set(bytes_);
}

void plan_cache::erase(std::list<item>::iterator gone) {
  bytes_ -= bytes_of(*gone);
  index_.erase(gone->key);
  recent_.erase(gone);
}

void plan_cache::clear() {
  index_.clear();
  recent_.clear();
  bytes_ = 0;
  probe_.plan_cache_bytes.set(0);
}

}  // namespace pgsled::frontend
