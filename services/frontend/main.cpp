#include "services/frontend/frontend_service.hpp"

int main(int argc, char** argv) {
  int status = 0;
  auto options = pgsled::app::parse_command_line("frontend", argc, argv, status);
  return options ? pgsled::frontend::run_frontend(std::move(*options)) : status;
}
