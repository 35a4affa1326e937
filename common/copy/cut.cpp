#include "common/copy/cut.hpp"

#include "common/copy/varint.hpp"

namespace pgsled::copy {

void encode(const cut_list& cuts, std::string& to) {
  for (const cut& each : cuts) {
    put_varint(to, each.bytes);
    put_varint(to, each.shard == to_all      ? 0
                   : each.shard == to_nobody ? 1
                                             : std::uint64_t{each.shard} + 2);
    put_varint(to, each.lines);
    put_varint(to, zigzag(static_cast<std::int64_t>(each.shard_lines - each.lines)));
  }
}

std::optional<cut_list> decode_cuts(byte_span from) {
  cut_list cuts;
  while (!from.empty()) {
    cut next;
    std::uint64_t shard = 0, difference = 0;
    if (!take_varint(from, next.bytes) || !take_varint(from, shard) ||
        !take_varint(from, next.lines) || !take_varint(from, difference)) {
      return std::nullopt;
    }
    if (shard >= std::uint64_t{to_all} + 2) return std::nullopt;
    next.shard = shard == 0 ? to_all : shard == 1 ? to_nobody
                                                  : static_cast<std::uint32_t>(shard - 2);
    next.shard_lines = next.lines + static_cast<std::uint64_t>(unzigzag(difference));
    cuts.push_back(next);
  }
  return cuts;
}

}  // namespace pgsled::copy
