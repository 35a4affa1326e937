#pragma once
// effects: what routing asks of the statements of a unit, as sql::find_statements() knows them.
// Pure.

#include <string>
#include <string_view>

#include "common/session/ledger.hpp"
#include "common/sql/statement.hpp"
#include "services/frontend/statements/statements.hpp"

namespace pgsled::frontend {

// What a prepared statement does with the parameters of this Bind, of which only the beginning may
// be there.
session::effects effects_of(const statement&, byte_span bind_body);

// The statement, if there is only one.
const sql::statement* only_effect(const session::effects&);
bool any_effect(const session::effects&, sql::effect wanted);
// They take prepared statements away: what the server skips must not be taken for done.
bool forgets_statements(const session::effects&);
// It says, or may say, more than BEGIN or START TRANSACTION.
bool has_modes(std::string_view begin);
// No statement at all.
bool is_blank(std::string_view text);
// A statement that says something about the transaction as a whole: it has no rows and no
// parameters.
bool has_no_rows(const session::effects&);
// As of one statement: there is only one.
bool leaves_failure(const session::effects&);
// `lower_words` in small letters; the text may have them in others.
bool starts_with_word(std::string_view text, std::string_view lower_words);
// The cursor that a statement names: DECLARE; FETCH or MOVE; CLOSE, where "all" may be all of them.
struct cursor_use {
  enum class kind : std::uint8_t { none, declares, reads, closes } what = kind::none;
  std::string name;
};
cursor_use cursor_of(std::string_view sql);
// A COMMIT or ROLLBACK of that text may begin the next transaction.
bool chains(std::string_view text);
// It does: nothing else can be meant.
bool surely_chains(std::string_view text);
// How many say something about the transaction as a whole.
std::size_t count_controls(const session::effects&);
// Behind it the same text may be about other tables, or other values.
bool changes_meaning(const sql::statement&);
// A text that is parsed behind it may mean something else for the rest of the session.
bool changes_texts(const sql::statement&);
// Names in what comes behind one of them may mean other tables.
bool changes_names(const session::effects&);

}  // namespace pgsled::frontend
