// The only file that includes CLI11: it is slow to compile.
#include <limits.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstdlib>

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

// The first process of a container has the same number in all of them.
std::string default_instance(const std::string& service) {
  std::array<char, HOST_NAME_MAX + 1> host{};
  if (::getpid() == 1 && ::gethostname(host.data(), host.size() - 1) == 0) {
    const auto named = fmt::format("{}-{}", service, host.data());
    if (check_instance(named).empty()) return named;
  }
  return fmt::format("{}-{}", service, ::getpid());
}

// --run-dir is PGSLED_RUN_DIR, as containers like it; the command line goes first. Not left to
// CLI11, which from 2.4 on takes no notice of a wrong value there.
std::vector<std::string> with_environment(CLI::App& parser, int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  for (const auto* option : parser.get_options()) {
    const auto& names = option->get_lnames();
    if (names.empty() || names[0] == "help" || names[0] == "version") continue;
    const auto flag = "--" + names[0];
    std::string variable = "PGSLED_" + names[0];
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    const char* value = std::getenv(variable.c_str());
    const bool given = std::any_of(argv + 1, argv + argc, [&](std::string_view word) {
      return word == flag || word.starts_with(flag + "=");
    });
    if (value != nullptr && *value != 0 && !given) words.push_back(flag + "=" + value);
  }
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  return words;
}

}  // namespace

std::optional<options> parse_command_line(const std::string& service, int argc, char** argv,
                                          int& exit_status) {
  options out;
  out.service = service;
  out.instance = default_instance(service);
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
      ->default_str(service + "-PID, in a container SERVICE-HOSTNAME");
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
    parser
        .add_option("--server-sockets", out.server_sockets,
                    "where DIR/HOST/.s.PGSQL.PORT is a socket, it is used instead of HOST:PORT")
        ->check(CLI::ExistingDirectory)
        ->type_name("DIR");
  }
  if (service == "replicator") {
    parser.add_option("--relay", out.relay, "endpoint for frontends' COPY, tcp://HOST:PORT")
        ->type_name("ENDPOINT");
  }
  parser.footer("Each can come from the environment: --run-dir is PGSLED_RUN_DIR, and so on.");
  try {
    parser.parse(with_environment(parser, argc, argv));
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
