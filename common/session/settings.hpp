#pragma once
// Sets of (name, value) pairs, interned per worker: two sessions with the same settings share one
// object, and "does this connection have what this session wants" is a comparison of pointers.
// Used for session settings (values tagged as below) and for ParameterStatus values (plain text).
// Thread rule: a table and its sets belong to one thread.
//
// A setting's value starts with '=' (text as written after SET name TO) or ':' (a string, applied
// by set_config(), as start-up parameters are).

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pgsled::session {

using pairs = std::vector<std::pair<std::string, std::string>>;

struct pair_set {
  pairs entries;  // sorted by name, names unique
  // Those of them that decide what a statement's text means when it is parsed. Statements prepared
  // under different ones must not be taken for the same.
  std::string parse_context{};
  // What find() says of these two, which are asked for with each statement.
  const std::string* search_path = nullptr;
  const std::string* standard_strings = nullptr;   // standard_conforming_strings
  bool hides_ascii = false;                        // client_encoding does
  const std::string* find(std::string_view name) const;

  pair_set() = default;
  pair_set(pairs sorted, std::string context);
  pair_set(const pair_set&) = delete;
  pair_set& operator=(const pair_set&) = delete;
};
using pair_set_ref = std::shared_ptr<const pair_set>;
// A setting that does, by its name in small letters.
bool decides_parsing(std::string_view name);
// A value of client_encoding, as a set has it or as SQL: bytes of ASCII may be parts of characters,
// and what is read of a text may not be what the server reads.
bool hides_ascii(std::string_view encoding);
// Says who the session is, which RESET ALL leaves alone.
bool is_identity(std::string_view name);

class pair_table {
 public:
  // A set larger than this is refused by the caller (the session is told 53200).
  static constexpr std::size_t max_entries = 256, max_bytes = 64 * 1024;

  pair_table();
  pair_set_ref empty() const { return empty_; }
  pair_set_ref intern(pairs entries);
  pair_set_ref with(const pair_set_ref& base, std::string_view name, std::string_view value);
  pair_set_ref without(const pair_set_ref& base, std::string_view name);
  std::size_t size() const { return sets_.size(); }

 private:
  void sweep();
  std::unordered_map<std::string, std::weak_ptr<const pair_set>> sets_;
  pair_set_ref empty_;
  std::size_t sweep_at_ = 64;
};

// One entry of a set as a statement; `local`: until the end of the transaction.
std::string setting_statement(std::string_view name, std::string_view value, bool local = false);
// SQL that turns a connection with `applied` into one with `wanted`; empty when nothing differs.
// `role` and `session_authorization` are taken back first and set last, because they change what
// the others may do.
std::string difference(const pair_set& applied, const pair_set& wanted);
// The same for a connection of which nothing is known: everything is reset first.
std::string full_application(const pair_set& wanted);
// A message is read by the encoding in effect when it comes: what is to be said in one of its own
// before `sql`, which is one of the two above. Empty, as mostly: nothing. `applied`: null where that
// is not known.
std::string encoding_before(const pair_set* applied, const pair_set& wanted, std::string_view sql);

std::string quote_literal(std::string_view value);  // '…', or E'…' where it has backslashes
std::string quote_setting_name(std::string_view name);

// Start-up parameters as a set: without user, database, replication, options and _pq_.*; the
// content of `options` (-c name=value, --name=value) becomes settings of its own. False: options
// are malformed.
bool startup_settings(const pairs& parameters, pairs& into);

}  // namespace pgsled::session
