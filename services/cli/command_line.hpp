#pragma once
// The operator's command line. Everything it does is elsewhere; here is only what it understands.

namespace pgsled::cli {

// Exit status: 0; 1 failed; 2 wrong command line or configuration.
int run(int argc, const char* const* argv);

}  // namespace pgsled::cli
