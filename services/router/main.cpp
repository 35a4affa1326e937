// pgsled-router: the truth about configuration and topology, and the plans made from it.

#include "common/app/app.hpp"
#include "services/router/control/configuration.hpp"
#include "services/router/router_service.hpp"

int main(int argc, char** argv) {
  int exit_status = 0;
  const auto options = pgsled::app::parse_command_line("router", argc, argv, exit_status);
  if (!options) return exit_status;
  auto loaded = pgsled::router::load_or_report(options->config, options->users);
  if (!loaded) return 2;
  pgsled::app::process process(*options);
  pgsled::router::router_service service(process, std::move(*loaded));
  return process.run(service.hooks());
}
