#include "services/router/control/membership.hpp"

#include <algorithm>

namespace pgsled::router {

bool valid_instance(const std::string& name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::uint32_t stable_hash(std::string_view text) {
  std::uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 16777619u;
  return hash;
}

namespace {
bool known_service(const std::string& service) {
  return service == "frontend" || service == "pooler" || service == "replicator" ||
         service == "cli";
}
}  // namespace

membership::hello_outcome membership::hello(const std::string& from, snapshot::hello said,
                                            std::int64_t now) {
  if (said.instance != from || !valid_instance(from)) {
    return {greeting::refused, "the hello's instance is not the sender's name"};
  }
  if (!known_service(said.service)) return {greeting::refused, "unknown service"};
  auto found = members_.find(from);
  if (found != members_.end() && found->second.hello.boot == said.boot) {
    // The router was not heard for a while, or the peer's link was made anew. What it was sent
    // may be lost, so it is sent again; a peer that said bye stays draining.
    found->second.hello = std::move(said);
    found->second.last_heard = now;
    found->second.sent.clear();
    return {greeting::repeated, {}};
  }
  const bool known = found != members_.end();
  if (!known && members_.size() >= max_members) return {greeting::refused, "too many processes"};
  std::uint32_t number = 0;
  if (said.service == "frontend") {
    number = known && found->second.holder != 0 ? found->second.holder
                                                : choose_holder(from, said.holder);
    if (number == 0) return {greeting::refused, "more than 1023 frontend workers"};
  }
  member fresh;
  fresh.hello = std::move(said);
  fresh.holder = number;
  fresh.last_heard = fresh.joined = now;
  members_[from] = std::move(fresh);
  return {known ? greeting::replaced : greeting::joined, {}};
}

bool membership::heard(const std::string& from, std::int64_t now) {
  const auto found = members_.find(from);
  if (found == members_.end()) return false;
  found->second.last_heard = now;
  return true;
}

bool membership::bye(const std::string& from) {
  const auto found = members_.find(from);
  if (found == members_.end() || found->second.draining) return false;
  found->second.draining = true;
  return true;
}

bool membership::acknowledge(const std::string& from, std::uint64_t epoch) {
  const auto found = members_.find(from);
  if (found == members_.end()) return false;
  member& who = found->second;
  // Nobody can have seen what was not sent; such an epoch is of an earlier router.
  if (epoch > who.sent_epoch || epoch <= who.acked_epoch) return false;
  who.acked_epoch = epoch;
  return true;
}

bool membership::forget(const std::string& from) { return members_.erase(from) > 0; }

std::vector<std::string> membership::expire(std::int64_t now) {
  std::vector<std::string> gone;
  for (auto it = members_.begin(); it != members_.end();) {
    if (now - it->second.last_heard >= silence_ms) {
      gone.push_back(it->first);
      it = members_.erase(it);
    } else {
      ++it;
    }
  }
  return gone;
}

void membership::forgive(std::int64_t silence) {
  for (auto& [name, who] : members_) who.last_heard += silence;
}

member* membership::find(const std::string& instance) {
  const auto found = members_.find(instance);
  return found == members_.end() ? nullptr : &found->second;
}

const member* membership::holder(std::uint32_t number) const {
  if (number == 0) return nullptr;
  for (const auto& [name, who] : members_) {
    if (who.holder == number) return &who;
  }
  return nullptr;
}

std::size_t membership::count(const std::string& service, bool with_draining) const {
  std::size_t found = 0;
  for (const auto& [name, who] : members_) {
    if (who.hello.service == service && (with_draining || !who.draining)) ++found;
  }
  return found;
}

std::vector<std::string> membership::behind() const {
  std::vector<std::string> names;
  for (const auto& [name, who] : members_) {
    if (who.hello.service != "cli" && !who.draining && !who.up_to_date()) names.push_back(name);
  }
  return names;
}

std::uint32_t membership::choose_holder(const std::string& instance, std::uint32_t wished) const {
  const auto is_free = [&](std::uint32_t number) { return holder(number) == nullptr; };
  if (wished >= 1 && wished <= max_holder && is_free(wished)) return wished;
  // By name first, so that a new router tends to give the numbers the old one gave.
  std::uint32_t number = 1 + stable_hash(instance) % max_holder;
  for (std::uint32_t tried = 0; tried < max_holder; ++tried) {
    if (is_free(number)) return number;
    number = number == max_holder ? 1 : number + 1;
  }
  return 0;
}

}  // namespace pgsled::router
