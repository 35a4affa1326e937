#pragma once
// pgbouncer: what PgBouncer's two files say, in the words of pgdog.toml and users.toml. Pure: texts
// in, texts out. What cannot be carried over is said, with its place and what to do; nothing is
// left out in silence. Defaults that differ from pgsled's are written down.

#include <string>
#include <string_view>
#include <vector>

namespace pgsled::cli {

struct pgbouncer_files {
  std::string ini, ini_name;             // text, and what to call it in notes
  std::string userlist, userlist_name;
};

struct imported {
  std::string pgdog, users;              // TOML
  std::vector<std::string> notes;        // "FILE:LINE: KEY: what became of it", in that order
  std::vector<std::string> mistakes;     // PgBouncer would not have read it either
};

imported import_pgbouncer(const pgbouncer_files&);



}  // namespace pgsled::cli
