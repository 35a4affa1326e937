#pragma once
// Prepared statements by content: one object for every client of a worker that prepares the same
// text with the same parameter types. Bounded in bytes; what clients still use is kept alive by
// them. Thread rule: one worker.

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/lease/messages.hpp"
#include "common/plan/plan.hpp"
#include "common/session/ledger.hpp"
#include "services/frontend/probe.hpp"

namespace pgsled::frontend {

struct cached_plan;

struct statement {
  std::string sql;
  std::string types;            // as in Parse: 4 bytes each, network order
  std::string context;          // settings under which it is parsed: pair_set::parse_context
  session::effects effects;     // null: none
  std::shared_ptr<const cached_plan> plan;  // of the last look-up; valid for its key only
  // A server has accepted it for these: who prepares it again need not have a server for that.
  std::weak_ptr<const void> proven_endpoint;
  std::shared_ptr<const void> proven_settings;

  // Its name on every server connection: by content, so that it is the same everywhere. 128 bits
  // of SHA-256; computed when first needed.
  const lease::statement_id& id() const;
  const std::string& server_name() const;
  std::size_t bytes() const {
    return sizeof *this + sql.size() + types.size() + context.size() + 128;
  }

 private:
  mutable lease::statement_id id_{};
  mutable std::string server_name_;
};
using statement_ref = std::shared_ptr<statement>;

class statement_cache {
 public:
  explicit statement_cache(probe& counters) : probe_(counters) {}
  void set_limit(std::size_t bytes) { limit_ = bytes; }
  statement_ref find_or_add(std::string_view sql, byte_span types, std::string_view context,
                            bool standard_strings);

 private:
  struct key {
    std::string_view sql, types, context;
    bool operator==(const key&) const = default;
  };
  struct key_hash {
    std::size_t operator()(const key& k) const {
      return std::hash<std::string_view>{}(k.sql) * 31 + std::hash<std::string_view>{}(k.types);
    }
  };
  void trim();

  probe& probe_;
  std::size_t limit_ = 64u << 20, bytes_ = 0;
  std::list<statement_ref> recent_;  // most recently used first
  std::unordered_map<key, std::list<statement_ref>::iterator, key_hash> index_;
  std::vector<sql::statement> scratch_;
};

}  // namespace pgsled::frontend
