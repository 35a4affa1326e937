#include "common/placement/change.hpp"

#include <fmt/format.h>

#include <limits>
#include <vector>

namespace pgsled::placement {

namespace {

// A mapping is constant between two neighbours of all the values that it names. So these, and for
// each a value straight behind it and one before it, stand for all.
class samples {
 public:
  explicit samples(key_type type) : type_(type) {
    add(type == key_type::bigint ? "0"
        : type == key_type::uuid ? "00000000-0000-0000-0000-000000000000"
                                 : "");
  }

  void around(const std::string& named) {
    const auto read = normalise(type_, form::text, named, {encoding::utf8, 0});
    if (!read) return;   // a flaw: it places nothing
    add(named);
    switch (type_) {
      case key_type::bigint:
        if (read->number > std::numeric_limits<std::int64_t>::min()) {
          add(std::to_string(read->number - 1));
        }
        if (read->number < std::numeric_limits<std::int64_t>::max()) {
          add(std::to_string(read->number + 1));
        }
        return;
      case key_type::uuid:
        add(neighbour(read->uuid, 0x00, 0xff));
        return add(neighbour(read->uuid, 0xff, 0x00));
      // Nothing lies between a text and it with the least character behind it. What lies before the
      // first text of all is the empty one.
      case key_type::varchar: return add(named + '\x01');
    }
  }
  void around(const mapping& from) {
    for (const auto& [text, shard] : from.list) around(text);
    for (const mapping_range& one : from.ranges) {
      if (one.has_start) around(one.start);
      if (one.has_end) around(one.end);
    }
  }
  const std::vector<std::string>& all() const { return all_; }

 private:
  void add(std::string text) { all_.push_back(std::move(text)); }

  // One less when bytes of 0x00 become 0xff on the way, one more when it is the other way round.
  static std::string neighbour(std::array<std::uint8_t, 16> of, std::uint8_t passes,
                               std::uint8_t becomes) {
    for (std::size_t at = of.size(); at-- > 0;) {
      if (of[at] == passes) {
        of[at] = becomes;
        continue;
      }
      of[at] = static_cast<std::uint8_t>(passes == 0x00 ? of[at] - 1 : of[at] + 1);
      break;
    }
    std::string text;
    for (const std::uint8_t byte : of) text += fmt::format("{:02x}", byte);
    return text;
  }

  key_type type_;
  std::vector<std::string> all_;
};

}  // namespace

std::optional<moved_value> first_moved(const mapping& before, const mapping& now) {
  const auto type = key_type_of(before.type);
  if (!type) return std::nullopt;
  samples some(*type);
  some.around(before);
  some.around(now);
  const mapping_index old_places(before), new_places(now);
  for (const std::string& text : some.all()) {
    const auto read = normalise(*type, form::text, text, {encoding::utf8, 0});
    if (!read) continue;
    const auto from = old_places.find(*read), to = new_places.find(*read);
    if (from && from != to) return moved_value{text, *from, to};
  }
  return std::nullopt;
}

}  // namespace pgsled::placement
