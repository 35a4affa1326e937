#pragma once
// What a statement does to the session that runs it, found by the lexer alone: a database with
// one host has nothing to plan, but SET, BEGIN, LISTEN and the like must still be seen.
// Pure; no libpg_query.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pgsled::sql {

enum class effect : std::uint8_t {
  none,
  begin,        // BEGIN, START TRANSACTION: value is the whole statement
  commit,       // COMMIT, END (also AND CHAIN), PREPARE TRANSACTION
  rollback,     // ROLLBACK, ABORT (also AND CHAIN)
  savepoint,    // name
  release,      // RELEASE [SAVEPOINT] name
  rollback_to,  // ROLLBACK TO [SAVEPOINT] name
  set,          // SET [SESSION] name TO value: name folded to lower case, value as written.
                // Also SET TIME ZONE (timezone), NAMES (client_encoding), SCHEMA (search_path),
                // ROLE (role), SESSION AUTHORIZATION (session_authorization),
                // set_config('name','value',false) with literals as a whole statement, a path
                // there as a list of quoted names
  set_local,    // SET LOCAL name TO value; SET TRANSACTION, SET CONSTRAINTS (name transaction or
                // constraints, value the whole statement); set_config(…, true), without a name
                // where the arguments are not all literals. Ends with the transaction
  reset,        // RESET name, SET name TO DEFAULT
  reset_all,
  discard_all,
  pin,  // leaves something on the connection that only the same connection has:
        // LISTEN, CREATE TEMP …, SELECT … INTO TEMP, PREPARE, session advisory locks,
        // DECLARE … WITH HOLD, LOAD, SET SESSION CHARACTERISTICS, set_config whose
        // arguments are not all literals and whose third is not true. Of SET SESSION
        // CHARACTERISTICS the name is "characteristics". Of a
        // statement that is nothing but set_config() of literals and parameters, `calls` has
        // the arguments, for who knows the parameters
  copy_from_stdin,
  deallocate,  // DEALLOCATE [PREPARE] name; name empty: ALL
};

struct setting_call;   // setting_calls.hpp

struct statement {
  sql::effect effect = effect::none;
  std::uint32_t offset = 0, length = 0;  // in the text
  std::string name, value;               // see effect
  bool unknown_path = false;  // pin, set_local: search_path may be another one, we cannot say which
  bool injected = false;      // not the client's: its replies are swallowed (session/ledger)
  std::shared_ptr<const std::vector<setting_call>> calls{};   // null for most
  std::vector<statement> also{};   // what more set_config() there is does: set, set_local
};

// Splits a simple query into statements (outside quotes, comments, parentheses and SQL-standard
// function bodies, BEGIN ATOMIC … END) and finds each one's effect. Empty statements are left out.
// Fast path: for a lone ordinary statement `into` holds one entry and no string is allocated.
void find_statements(std::string_view sql, bool standard_strings, std::vector<statement>& into);

// False: the text is one ordinary statement without any effect, and find_statements need not be
// asked. A look at the bytes without lexing, so true may be a false alarm.
bool may_affect_session(std::string_view sql);

}  // namespace pgsled::sql
