#pragma once
// A unit: the messages that must go to one place together. A Query or FunctionCall alone, or the
// messages of the extended protocol up to and including Sync or Flush. Views into the input.

#include <optional>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/session/ledger.hpp"
#include "common/wire/messages.hpp"
#include "services/frontend/statements/effects.hpp"
#include "services/frontend/statements/plans.hpp"
#include "services/frontend/statements/statements.hpp"

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
  bool in_doubt = false;         // means a statement of which the server has to answer first
  std::size_t executes = 0;
  // Its statements that write to every shard, with the plan of each; set by routing. A Bind, or the
  // Query.
  struct row_statement {
    const part* from;
    plan_ref plan;
  };
  std::vector<row_statement> writes;
};

// Each Bind is followed by the Execute of its portal, and there is no other Execute.
bool runs_what_it_binds(const unit&);
// Each statement that it parses or describes is bound here, too, and each portal that it describes
// or closes.
bool binds_what_it_asks_of(const unit&);
// Has a Parse, a Bind or a Describe.
bool asks_of_statements(const unit&);
// All that it parses are statements that end a transaction or a part of it, all that it describes
// are about one; no Bind.
bool only_prepares_an_end(const unit&);
// A Query of no statement.
bool is_empty_query(const unit&);
// The session has another unnamed statement behind it, or none: Query, and Parse without a name. Of
// the body the beginning will do; where there is nothing of it, that counts as no name.
bool replaces_unnamed(char type, byte_span body);
// Leaves what comes up to the first Execute; or, where there is none, before the Sync. `bytes`: of
// the input, where the unit begins.
void cut_unit(unit&, byte_span bytes);
// Whether anything but the end of the batch follows the first Execute.
bool goes_on(const unit&);

// Where the statements of a unit want to go, joined one after the other.
struct aim {
  enum class kind { any, shard, all } where = kind::any;
  std::uint32_t shard = 0;
};

// The refusals of statements in a transaction that has failed, of those that begin one where there
// is none, and of those that cannot be in one together.
pg_error aborted_transaction();
pg_error no_transactions();
pg_error two_shards(std::uint32_t first, std::uint32_t second);

// What the statements of a unit ask for together.
struct unit_goal {
  aim target;
  std::optional<pg_error> refused;
  bool fenced = false;             // some of the rows may be behind a fence
  bool writes = false;
  bool names_portals = false;      // which may be asked for behind it
  plan_ref everywhere;             // of the last statement for all shards
  plan_ref copies;                 // of a COPY that runs
  session::effects executed;       // of the last statement that runs, and its text
  std::string_view text;
  cursor_use cursor;               // of that text
  std::size_t controls = 0;        // statements about the transaction as a whole
};

}  // namespace pgsled::frontend
