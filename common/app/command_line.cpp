// The only file that includes CLI11: it is slow to compile.
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/app/app.hpp"

namespace pgsled::app {
namespace {

constexpr std::size_t max_instance = 64;

std::string check_instance(const std::string& name) {
  const bool good = !name.empty() && name.size() <= max_instance && name.front() != '.' &&
                    name.find_first_not_of("abcdefghijklmnopqrstuvwxyz"
                                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
                        std::string::npos;
  return good ? std::string()
              : fmt::format("\"{}\" must have 1 to {} letters, digits, '.', '_' or '-', and not "
                            "begin with '.'",
                            name, max_instance);
}

std::string check_address(const std::string& text) {
  const auto colon = text.rfind(':');
  const auto port = colon == std::string::npos ? std::string() : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  return digits && std::stoul(port) <= 65535 ? std::string()
                                             : fmt::format("\"{}\" is not HOST:PORT", text);
}

std::string check_endpoint(const std::string& endpoint, bool has_keys) {
  bus::curve_keys keys;
  if (has_keys) keys.secret_key = "given";
  auto problem = bus::endpoint_problem(endpoint, keys);
  constexpr std::size_t longest = sizeof(sockaddr_un::sun_path) - 1;
  if (problem.empty() && endpoint.starts_with("ipc://") && endpoint.size() - 6 > longest)
    problem = fmt::format("\"{}\": a socket path has at most {} bytes; choose a shorter --run-dir",
                          endpoint, longest);
  return problem;
}

}  // namespace

std::optional<options> parse_command_line(const std::string& service, int argc, char** argv,
                                          int& exit_status) {
  options out;
  out.service = service;
  out.instance = fmt::format("{}-{}", service, ::getpid());
  CLI::App parser(fmt::format("pgsled {}: one process of the pgsled suite", service),
                  "pgsled-" + service);
  parser.set_version_flag("--version", fmt::format("pgsled-{} {}", service, PGSLED_VERSION));
  const bool is_router = service == "router";
  auto* const router = parser.add_option("--router", out.router,
                                         is_router ? "endpoint to bind" : "endpoint of the router");
  router->type_name("ENDPOINT")->default_str("ipc://RUN_DIR/router.bus");
  parser.add_option("--instance", out.instance, "name of this process, unique in the suite")
      ->check(check_instance)
      ->type_name("NAME")
      ->default_str(service + "-PID");
  parser.add_option("--http", out.http, "where /metrics, /healthz and /readyz are served")
      ->check(check_address)
      ->type_name("HOST:PORT")
      ->capture_default_str();
  parser.add_option("--run-dir", out.run_dir, "directory of sockets, mode 0700")
      ->type_name("DIR")
      ->capture_default_str();
  parser.add_option("--curve-dir", out.curve_dir, "directory of CURVE keys, for tcp endpoints")
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
  parser.add_option("--log-level", out.log_level, "trace, debug, info, warn, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  parser.add_option("--log-format", out.log_format, "text, json or json_flattened")
      ->check(CLI::IsMember({"text", "json", "json_flattened"}))
      ->capture_default_str();
  if (is_router) {
    parser.add_option("--config", out.config, "pgdog.toml")->required()->type_name("FILE");
    parser.add_option("--users", out.users, "users.toml")->required()->type_name("FILE");
  }
  if (service == "pooler") {
    parser.add_option("--databases", out.databases, "serve only these, a,b; default: all")
        ->type_name("LIST");
    parser.add_option("--relay", out.relay, "endpoint of the relay lane, tcp://HOST:PORT")
        ->type_name("ENDPOINT");
  }
  if (service == "replicator") {
    parser.add_option("--relay", out.relay, "endpoint for frontends' COPY, tcp://HOST:PORT")
        ->type_name("ENDPOINT");
  }
  try {
    parser.parse(argc, argv);
    if (router->count() == 0) out.router = "ipc://" + out.run_dir + "/router.bus";
    const bool keys = !out.curve_dir.empty();
    if (auto problem = check_endpoint(out.router, keys); !problem.empty())
      throw CLI::ValidationError("--router", problem);
    if (auto problem = out.relay.empty() ? "" : check_endpoint(out.relay, keys); !problem.empty())
      throw CLI::ValidationError("--relay", problem);
  } catch (const CLI::ParseError& e) {
    const bool asked = e.get_exit_code() == 0;  // --help, --version
    parser.exit(e);
    exit_status = asked ? 0 : 2;
    return std::nullopt;
  }
  return out;
}

}  // namespace pgsled::app
