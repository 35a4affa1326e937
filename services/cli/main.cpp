#include <cstdio>
#include <exception>

#include "services/cli/command_line.hpp"

int main(int argc, char** argv) {
  try {
    return pgsled::cli::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pgsled: %s\n", error.what());
    return 1;
  }
}
