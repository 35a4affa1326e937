#pragma once
// name: what a transaction over several shards is called while it commits. The name is the record
// by which anybody can finish what its coordinator left behind: it stands in the identifier (gid)
// of every prepared transaction, and its key is the primary key of the decision row. Pure.
//
//   gid = pgsled_<coordinator>_<participant>_<pid>_<xid>_<deadline>_<id>_<database>
//   key =                                   <pid>_<xid>_<deadline>_<id>
//
// pid, xid and deadline are hexadecimal and made by the coordinator's server (`mark`): backend and
// transaction of the decision, and until when it may be made (milliseconds since 1970, its clock).
// Backend *and* transaction, because the connection may long serve somebody else. The participant
// is part of the gid because two shards may be databases of one server, where gids are unique.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::commit {

struct name {
  std::uint32_t coordinator = 0;   // shard that holds the decision
  std::string mark;                // <pid>_<xid>_<deadline>
  std::string id;                  // 32 hexadecimal digits, drawn at random by who commits
  std::string database;            // as clients know it
  bool operator==(const name&) const = default;

  std::string key() const { return mark + "_" + id; }
};

inline constexpr std::string_view gid_prefix = "pgsled_";
inline constexpr std::size_t max_gid = 199;   // bytes, PostgreSQL's GIDSIZE less the zero

std::string make_id(const std::array<std::uint8_t, 16>& random);
// 0A000 when the name of the database makes it longer than PostgreSQL allows; XX000 when the mark
// is not one. Of letters, digits and `_.-%` only, so that it needs no quoting but quotes.
result<std::string> make_gid(const name&, std::uint32_t participant);

struct parsed_gid {
  name of;
  std::uint32_t participant = 0;
};
std::optional<parsed_gid> parse_gid(std::string_view);
bool is_mark(std::string_view);    // what open_decision may answer

}  // namespace pgsled::commit
