#pragma once
// What a walsender sends: the frames of the streaming protocol, and in them the messages of
// pgoutput, protocol version 1 (PostgreSQL's documentation, "Logical Replication Message Formats").
// Pure; everything that is decoded borrows from the bytes it was decoded from. A length is checked
// before it is used; what is left over at the end of a message is a mistake, too.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/base/result.hpp"

namespace pgsled::moving {

using lsn = std::uint64_t;             // a position in a server's log
std::string lsn_to_text(lsn);          // as pg_lsn: 16/B374D848
std::optional<lsn> lsn_from_text(std::string_view);

namespace wal {

struct begin {
  lsn final_position = 0;              // of its commit record
  std::int64_t committed_at = 0;       // microseconds since 2000
  std::uint32_t transaction = 0;
};
struct commit {
  lsn position = 0, end = 0;           // of the commit record, and behind it
  std::int64_t committed_at = 0;
};
struct origin {                        // of the transaction whose begin came before
  lsn position = 0;
  std::string_view name;
};
struct column {
  bool in_identity = false;
  std::string_view name;
  std::uint32_t type = 0;
  std::int32_t modifier = -1;
};
struct relation {
  std::uint32_t id = 0;
  std::string_view schema, name;       // schema: empty stands for pg_catalog
  char identity = 'd';                 // as pg_class.relreplident
  std::vector<column> columns;
};
struct type {};                        // skipped: types are compared by number
struct field {
  // unchanged: a TOASTed value that is not in the log; absent is never decoded: a column that the
  // table did not have then.
  enum class kind : char { null = 'n', unchanged = 'u', text = 't', binary = 'b', absent = '-' };
  kind what = kind::null;
  std::string_view value;
};
using tuple = std::vector<field>;
struct insert {
  std::uint32_t relation = 0;
  tuple row;
};
struct update {
  std::uint32_t relation = 0;
  char old_kind = 0;                   // 'K': only the identity's columns, 'O': all, 0: none came
  tuple old, row;
};
struct erase {
  std::uint32_t relation = 0;
  char old_kind = 0;                   // K or O
  tuple old;
};
struct truncate {
  std::vector<std::uint32_t> relations;
};
struct message {                       // pg_logical_emit_message
  bool transactional = false;
  lsn position = 0;
  std::string_view prefix, content;
};

using any = std::variant<begin, commit, origin, relation, type, insert, update, erase, truncate,
                         message>;

// 08P01 when it is none of these or is cut.
result<any> decode(byte_span bytes);

}  // namespace wal

// One CopyData message of START_REPLICATION.
struct wal_frame {
  bool data = false;                   // else a keepalive
  lsn start = 0;                       // of data; 0 for some messages
  lsn server_end = 0;                  // what the server has written
  bool wants_reply = false;
  byte_span payload;                   // of data: what wal::decode() takes
};
result<wal_frame> decode_frame(byte_span bytes);

// Standby status update: all up to `applied` is safe at our side and need not be kept.
std::string encode_status(lsn applied, std::int64_t microseconds_since_2000);

}  // namespace pgsled::moving
