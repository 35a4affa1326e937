// pgsled-pooler: the connections to the servers, and who may use them.

#include "services/pooler/pooler_service.hpp"

int main(int argc, char** argv) {
  int exit_status = 0;
  const auto options = pgsled::app::parse_command_line("pooler", argc, argv, exit_status);
  if (!options) return exit_status;
  pgsled::app::process process(*options);
  pgsled::pooler::pooler_service service(process);
  return process.run(service.hooks());
}
