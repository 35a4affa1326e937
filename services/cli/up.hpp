#pragma once
// `pgsled up`: a whole suite on one machine, in the foreground. One thread; children are tied to
// it by PR_SET_PDEATHSIG, which counts the thread that forked.

#include <string>

namespace pgsled::cli {

struct up_options {
  std::string config = "pgdog.toml", users = "users.toml";
  std::string run_dir;     // empty: default_run_dir()
  std::string binaries;    // directory of the services; empty: that of this program
  int poolers = 1, frontends = 1, replicators = 1;
};

// Checks both files, then runs until SIGTERM or SIGINT. Exit status: 0 drained, 2 not started.
int up(const up_options&);

}  // namespace pgsled::cli
