#include "services/router/admin/gatherer.hpp"

namespace pgsled::router {

bool gatherer::ask(const std::vector<std::string>& whom, const std::string& json,
                   std::int64_t deadline, callback done) {
  if (open_.size() >= max_open) return false;
  const std::uint64_t request = next_++;
  const auto [it, inserted] = open_.try_emplace(request);
  it->second.deadline = deadline;
  it->second.done = std::move(done);
  for (const std::string& name : whom) {
    if (send_(name, request, json)) {
      it->second.waiting.insert(name);
    } else {
      it->second.so_far.missing.push_back(name);
    }
  }
  if (it->second.waiting.empty()) finish(it);
  return true;
}

void gatherer::answer(const std::string& from, std::uint64_t request, std::string json) {
  const auto it = open_.find(request);
  if (it == open_.end() || it->second.waiting.erase(from) == 0) return;
  it->second.so_far.answers.emplace_back(from, std::move(json));
  if (it->second.waiting.empty()) finish(it);
}

void gatherer::failed(const std::string& from, std::uint64_t request) {
  const auto it = open_.find(request);
  if (it == open_.end() || it->second.waiting.erase(from) == 0) return;
  it->second.so_far.missing.push_back(from);
  if (it->second.waiting.empty()) finish(it);
}

void gatherer::lost(const std::string& instance) {
  std::vector<std::uint64_t> requests;
  for (const auto& [request, one] : open_) {
    if (one.waiting.contains(instance)) requests.push_back(request);
  }
  for (const std::uint64_t request : requests) failed(instance, request);
}

void gatherer::tick(std::int64_t now) {
  std::vector<std::uint64_t> late;
  for (const auto& [request, one] : open_) {
    if (now >= one.deadline) late.push_back(request);
  }
  for (const std::uint64_t request : late) {
    const auto it = open_.find(request);
    if (it != open_.end()) finish(it);
  }
}

void gatherer::finish(std::map<std::uint64_t, question>::iterator it) {
  question ended = std::move(it->second);
  open_.erase(it);   // first: the callback may ask again
  for (const std::string& name : ended.waiting) ended.so_far.missing.push_back(name);
  ended.done(std::move(ended.so_far));
}

}  // namespace pgsled::router
