#pragma once
// pgbouncer_files: the syntax of PgBouncer's ini file and of its list of users. Pure. `bad` is told
// what cannot be read, with the line's number; the rest is read on.

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pgsled::cli {

using complaint = std::function<void(std::size_t line, std::string_view text)>;

struct ini_line {
  std::string section, key, value;   // section, and keys of [pgbouncer], in lower case
  std::size_t number = 0;
};
// "%include FILE" comes as key "%include".
std::vector<ini_line> read_ini(std::string_view text, const complaint& bad);

struct listed_user {
  std::string name, secret;
  std::size_t number = 0;
};
std::vector<listed_user> read_userlist(std::string_view text, const complaint& bad);

// "host=a port=1 password='it''s'", keys in lower case. After what cannot be read there is no more.
std::map<std::string, std::string> read_pairs(
    std::string_view text, const std::function<void(std::string_view)>& bad);

std::string_view trimmed(std::string_view);
std::string lower(std::string_view);

}  // namespace pgsled::cli
