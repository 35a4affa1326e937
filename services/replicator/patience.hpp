#pragma once
// patience: when a joining shard is given rows by itself, and how often that is tried. Pure: times
// are milliseconds of any clock that does not go back.
//
// A try that fails is repeated after 5 s, doubling up to 5 minutes, ten times at most; then nothing
// more is done until the configuration is another one (a RELOAD counts). What an operator has
// aborted, and where there is nothing to do, is not tried again before that either.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pgsled::replicator {

class patience {
 public:
  static constexpr std::int64_t first_pause = 5'000, longest_pause = 300'000;   // ms
  static constexpr std::uint32_t most_tries = 10;

  // Databases with a shard that is joining, and a number for the state of their configuration.
  void configure(const std::vector<std::pair<std::string, std::uint64_t>>& joining);
  // The database to begin with, of those for which there is nothing under way.
  std::optional<std::string> due(std::int64_t now,
                                 const std::function<bool(const std::string&)>& busy = {}) const;
  enum class end { done, nothing_to_do, aborted, failed };
  void ended(const std::string& database, end, std::int64_t now);
  // ms until the next try; none: there will not be one.
  std::optional<std::int64_t> next_try(const std::string& database, std::int64_t now) const;

 private:
  struct state {
    std::uint64_t configuration = 0;
    std::uint32_t tries = 0;
    std::int64_t at = 0;               // of the next try
    bool over = false;
  };
  std::map<std::string, state> databases_;
};

}  // namespace pgsled::replicator
