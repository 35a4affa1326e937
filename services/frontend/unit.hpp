#pragma once
// A unit: the messages that must go to one place together. A Query or FunctionCall alone, or the
// messages of the extended protocol up to and including Sync or Flush. Views into the input.

#include <string_view>
#include <vector>

#include "common/wire/messages.hpp"
#include "services/frontend/plans.hpp"
#include "services/frontend/statements.hpp"

namespace pgsled::frontend {

struct unit {
  struct part {
    char type = 0;
    byte_span body;
    statement_ref target;        // of Parse, Bind, Describe 'S'
  };
  std::vector<part> parts;
  std::size_t bytes = 0;
  bool simple = false;           // Query or FunctionCall
  bool ends_with_sync = false;
  std::size_t executes = 0;
  // Its statements that write to every shard, with the plan of each; set by routing. A Bind, or the
  // Query.
  struct row_statement {
    const part* from;
    plan_ref plan;
  };
  std::vector<row_statement> writes;
};

// Where the statements of a unit want to go, joined one after the other.
struct aim {
  enum class kind { any, shard, all } where = kind::any;
  std::uint32_t shard = 0;
};

}  // namespace pgsled::frontend
