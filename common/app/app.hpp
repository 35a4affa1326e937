#pragma once
// What every service process has in common: command line, signals, logs, the HTTP endpoints and
// the order of start and stop. A main() is: parse, construct the service, run.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/bus/peer.hpp"
#include "common/net/reactor.hpp"

namespace pgsled::app {

struct options {
  std::string service;             // frontend, router, pooler, replicator
  std::string router = "ipc://./router.bus";  // --router: endpoint to find (router: to bind)
  // --instance; letters, digits, . _ -. Default <service>-<pid>, in a container <service>-<host>
  std::string instance;
  std::string http = "127.0.0.1:0";  // --http
  std::string run_dir = ".";       // --run-dir: sockets of this process, mode 0700
  std::string config, users;       // router only
  std::string databases;           // pooler only: a,b
  std::string curve_dir;           // --curve-dir: server.public, client.public, client.secret, …
  std::string server_sockets;      // pooler only: --server-sockets, see resolver.hpp
  std::string relay;               // pooler, replicator: --relay tcp://host:port for frontends
  std::string log_level = "info", log_format = "text";
};

// Handles --help and --version itself (returns nullopt and sets exit_status). What is not on the
// command line is taken from the environment: PGSLED_RUN_DIR is --run-dir, and so on.
std::optional<options> parse_command_line(const std::string& service, int argc, char** argv,
                                          int& exit_status);

// Keys in --curve-dir: files of one line of Z85 text each. All empty when `directory` is. Throw
// std::runtime_error naming the file.
// client.public, client.secret, server.public: to connect with.
bus::curve_keys load_curve(const std::string& directory);
// server.public, server.secret: for the router, to bind with.
bus::curve_keys load_curve_server(const std::string& directory);
// client.public and every clients/*.public: whom the router admits.
std::vector<std::string> load_curve_clients(const std::string& directory);
std::string host_identity();  // boot id + network namespace: equal means same host
// The same kernel: in containers beside each other, each with a network namespace of its own.
bool same_machine(std::string_view one_identity, std::string_view other);
std::string random_id();      // 16 hex digits

// The process around a service: starts logs, HTTP and signal handling, calls `run` on the calling
// thread, returns the exit status. SIGTERM and SIGINT call `drain` once on an unspecified thread
// (post to your reactor); a second one exits at once. SIGHUP calls `reload`. A service manager that
// asks for it (systemd, Type=notify) is told when the service is ready, reloads and stops.
struct hooks {
  std::function<int()> run;
  std::function<void()> drain;
  // May be empty. `done` gets a line that says how it went; from any thread, and not at all when
  // the process ends first.
  std::function<void(std::function<void(std::string said)> done)> reload;
  // The last two are called on the HTTP thread, also while `run` is starting or ending.
  std::function<std::string()> ready;          // empty text: ready; else what is missing
  std::function<std::string(bool openmetrics)> metrics;  // empty: the process registry
};
class process {
 public:
  explicit process(options);
  ~process();
  int run(hooks);
  const options& opts() const;
  const std::string& boot() const;             // random id of this start
  std::string http_address() const;            // in effect once run() has begun
  std::shared_ptr<bus::context> bus() const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace pgsled::app
