#pragma once
// pgsled import: from PgBouncer's files to pgdog.toml and users.toml.

#include <string>

namespace pgsled::cli {

struct import_options {
  std::string ini, userlist;             // userlist empty: what the ini names as auth_file
  std::string pgdog = "pgdog.toml", users = "users.toml";
};

// Writes both files (mode 0600: passwords are in them); nothing that exists is overwritten. Says on
// standard error what could not be carried over. Returns the exit status: 0, or 2 after saying what
// is wrong, with nothing written.
int import_files(const import_options&);

}  // namespace pgsled::cli
