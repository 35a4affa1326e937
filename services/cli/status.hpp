#pragma once
// `pgsled status`: asks the router which processes there are.

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace pgsled::cli {

struct status_options {
  std::string router;   // endpoint; empty: RUN_DIR/router.bus
  std::string run_dir;  // empty: default_run_dir()
  bool json = false;
};

// Prints a table or JSON. Exit status: 0, or 1 when no router answers.
int status(const status_options&);

// The two ways to show an admin answer {"columns":[{"name":…}],"rows":[[…]]}. Pure. 08P01 when
// the answer has another form.
result<std::string> render_table(std::string_view answer);
// {"router": endpoint, "processes": [{column: value, …}, …]} and a newline.
result<std::string> render_json(std::string_view answer, std::string_view endpoint);

}  // namespace pgsled::cli
