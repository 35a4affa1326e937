#pragma once
// cut: a piece of a COPY's input and who gets it. Cuts follow each other without a gap, in the
// order of the input, whatever the borders of CopyData messages were. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.hpp"

namespace pgsled::copy {

inline constexpr std::uint32_t to_all = 0xfffffffe;     // header, trailer
inline constexpr std::uint32_t to_nobody = 0xffffffff;  // what comes after \.

struct cut {
  std::uint64_t bytes = 0;
  std::uint32_t shard = to_nobody;
  // Lines as PostgreSQL counts them for its errors: of the client's input, and of what the shard
  // gets. The two differ only in the first row of a shard, when line ends are quoted in it.
  std::uint64_t lines = 0, shard_lines = 0;
  bool operator==(const cut&) const = default;
};
using cut_list = std::vector<cut>;

// Layout: for each cut four LEB128 numbers: bytes, 0 all | 1 nobody | shard + 2, lines, and the
// difference shard_lines - lines as zigzag. Nothing: malformed.
void encode(const cut_list&, std::string& to);
std::optional<cut_list> decode_cuts(byte_span);

}  // namespace pgsled::copy
