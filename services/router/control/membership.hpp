#pragma once
// membership: who is there. A peer says hello, is heard from every second, and is gone after three
// seconds of silence; bye makes it draining. Legal sequence of one instance:
//   hello → (heard)* → bye? → (heard)* → silence; a hello with a new boot replaces the old life.
// Pure: times are milliseconds of a steady clock, handed in. Thread rule: one thread.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/snapshot/snapshot.hpp"

namespace pgsled::router {

inline constexpr std::int64_t silence_ms = 3000;
inline constexpr std::size_t max_members = 4096;
inline constexpr std::uint32_t max_holder = 1023;  // 11 bits of a cancel key's pid, 0 is nobody

struct member {
  snapshot::hello hello;
  bool draining = false;
  std::uint32_t holder = 0;        // frontend workers only
  std::int64_t last_heard = 0;
  std::int64_t joined = 0;
  std::uint64_t sent_epoch = 0;    // of the newest snapshot it was sent
  std::uint64_t acked_epoch = 0;
  std::vector<std::string> drained;  // fences, as it said with its last ack
  std::string sent;                // that snapshot as JSON, without its epoch
  bool up_to_date() const { return acked_epoch >= sent_epoch; }
};

class membership {
 public:
  // What a hello was: refused ones say why. `replaced` is a new life of a known instance.
  enum class greeting { joined, replaced, repeated, refused };
  struct hello_outcome {
    greeting what = greeting::refused;
    std::string reason;
  };
  hello_outcome hello(const std::string& from, snapshot::hello, std::int64_t now);
  // False: nobody of that name is known; the driver asks it for a hello.
  bool heard(const std::string& from, std::int64_t now);
  bool bye(const std::string& from);                     // true when that changed something
  bool acknowledge(const std::string& from, std::uint64_t epoch);
  bool forget(const std::string& from);                  // true when it was known
  std::vector<std::string> expire(std::int64_t now);     // those that are gone now

  void forgive(std::int64_t silence);                    // that long nobody could be heard

  member* find(const std::string& instance);
  const std::map<std::string, member>& all() const { return members_; }
  std::map<std::string, member>& all() { return members_; }
  // The frontend worker of that number; nullptr when there is none.
  const member* holder(std::uint32_t number) const;
  std::size_t count(const std::string& service, bool with_draining) const;
  // Instances that live, are not draining and have not acknowledged what they were sent.
  std::vector<std::string> behind() const;

 private:
  std::uint32_t choose_holder(const std::string& instance, std::uint32_t wished) const;
  std::map<std::string, member> members_;
};

// Letters, digits and . _ - only, at most 128.
bool valid_instance(const std::string&);
// Stable over runs and machines: FNV-1a.
std::uint32_t stable_hash(std::string_view);

}  // namespace pgsled::router
