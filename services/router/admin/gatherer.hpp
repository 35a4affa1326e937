#pragma once
// gatherer: one question to many processes, and what had come by the deadline. Bookkeeping only:
// the driver sends and tells the time (milliseconds). Bounded: 64 questions under way.
//
//   ask → (answer | failed | lost)* → done, exactly once, when all have answered or by the deadline

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace pgsled::router {

struct gathered {
  std::vector<std::pair<std::string, std::string>> answers;  // instance, JSON
  std::vector<std::string> missing;                          // did not answer in time, or failed
};

class gatherer {
 public:
  static constexpr std::size_t max_open = 64;
  using callback = std::function<void(gathered)>;
  using sender = std::function<bool(const std::string& to, std::uint64_t request,
                                    const std::string& json)>;
  explicit gatherer(sender send) : send_(std::move(send)) {}

  // Done may be called from inside when nobody is to be asked. False when too many are open.
  bool ask(const std::vector<std::string>& whom, const std::string& json, std::int64_t deadline,
           callback done);
  void answer(const std::string& from, std::uint64_t request, std::string json);
  void failed(const std::string& from, std::uint64_t request);
  void lost(const std::string& instance);   // it is gone: nothing will come
  void tick(std::int64_t now);
  std::size_t open() const { return open_.size(); }

 private:
  struct question {
    std::set<std::string> waiting;
    gathered so_far;
    std::int64_t deadline = 0;
    callback done;
  };
  void finish(std::map<std::uint64_t, question>::iterator);

  sender send_;
  std::map<std::uint64_t, question> open_;
  std::uint64_t next_ = 1;
};

}  // namespace pgsled::router
