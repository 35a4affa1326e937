// pgsled-replicator: splits COPY for frontends; moving rows comes later.

#include <cstdio>
#include <exception>

#include "common/app/app.hpp"
#include "services/replicator/replicator_service.hpp"

int main(int argc, char** argv) {
  int exit_status = 0;
  const auto options = pgsled::app::parse_command_line("replicator", argc, argv, exit_status);
  if (!options) return exit_status;
  try {
    pgsled::app::process process(*options);
    pgsled::replicator::replicator_service service(process);
    return process.run(service.hooks());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "pgsled-replicator: %s\n", e.what());
    return 1;
  }
}
