#pragma once
// pgsled keys: CURVE key pairs, for processes that speak over tcp.

#include <string>

namespace pgsled::cli {

// Writes PATH.public and PATH.secret (mode 0600). Nothing that exists is overwritten. Returns the
// exit status: 0, or 2 after saying on standard error what is wrong.
int make_keys(const std::string& path);

}  // namespace pgsled::cli
