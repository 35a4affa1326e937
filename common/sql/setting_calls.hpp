#pragma once
// set_config() as a statement: what it sets, as far as its arguments say so. Pure; no libpg_query.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/sql/statement.hpp"

namespace pgsled::sql {

// set_config(name, value, is_local)
struct setting_call {
  struct argument {
    std::string text;              // of a literal, without its quotes; true, false
    std::uint16_t parameter = 0;   // or the number of a parameter, from 1
  };
  argument name, value, is_local;
  bool has_parameters() const {
    return name.parameter > 0 || value.parameter > 0 || is_local.parameter > 0;
  }
};

// The calls of SELECT [pg_catalog.]set_config(…) [[AS] name] [, …], which lies in [from, end) of
// `sql`, if it is nothing else and all their arguments are literals or parameters. Else none.
std::vector<setting_call> read_setting_calls(std::string_view sql, bool standard_strings,
                                             std::uint32_t from, std::uint32_t end);
// How many calls of set_config() there are anywhere in it, if the last argument of each is plainly
// true: gone with the transaction. Else 0.
std::size_t count_local_calls(std::string_view sql, bool standard_strings, std::uint32_t from,
                              std::uint32_t end);

// A call whose arguments are known: what the setting becomes, and that as SQL.
struct known_setting {
  std::string name, value, literal;
  bool is_local = false;
};
// Such calls, one after the other, as effects: as good as SET [LOCAL]. False: they may do something
// else, and `to` stays as it is.
bool sets(const std::vector<known_setting>&, statement& to);

// Settings of the transaction alone, whose names do not say so. In small letters.
bool is_transaction_mode(std::string_view name);
// In any case: what names and texts mean depends on it.
bool decides_names(std::string name);
// A search_path, in any case: it may name the schema of temporary tables.
bool says_pg_temp(std::string path);

}  // namespace pgsled::sql
