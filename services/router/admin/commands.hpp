#pragma once
// Small JSON texts of the control plane: docs/formats/gather.md. Pure.

#include <string>
#include <string_view>

namespace pgsled::router {

struct command {
  std::string name, database;
};
command read_command(std::string_view json);   // empty name when it is none
struct admin_question {
  std::string user, sql;
};
admin_question read_admin_question(std::string_view json);   // empty sql when it is none

}  // namespace pgsled::router
