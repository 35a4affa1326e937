#include "services/cli/status.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <random>
#include <vector>

#include "common/bus/peer.hpp"
#include "common/snapshot/snapshot.hpp"
#include "services/cli/run_dir.hpp"

namespace pgsled::cli {
namespace json = boost::json;
namespace {

constexpr std::chrono::milliseconds patience{3000};

struct answer_table {
  std::vector<std::string> columns;
  std::vector<std::vector<json::value>> rows;
};

result<answer_table> read(std::string_view text) {
  const auto bad = [] { return failure("08P01", "the router's answer has an unknown form"); };
  boost::system::error_code ec;
  const auto root = json::parse(json::string_view(text.data(), text.size()), ec);
  if (ec || !root.is_object()) return bad();
  const auto* columns = root.as_object().if_contains("columns");
  const auto* rows = root.as_object().if_contains("rows");
  if (columns == nullptr || !columns->is_array() || rows == nullptr || !rows->is_array()) {
    return bad();
  }
  answer_table to;
  for (const auto& column : columns->as_array()) {
    const auto* name = column.is_object() ? column.as_object().if_contains("name") : &column;
    if (name == nullptr || !name->is_string()) return bad();
    to.columns.emplace_back(name->as_string());
  }
  for (const auto& row : rows->as_array()) {
    if (!row.is_array() || row.as_array().size() != to.columns.size()) return bad();
    to.rows.emplace_back(row.as_array().begin(), row.as_array().end());
  }
  return to;
}

std::string show(const json::value& of) {
  if (of.is_null()) return "";
  return of.is_string() ? std::string(of.as_string()) : json::serialize(of);
}

result<std::string> ask(const std::string& endpoint) {
  net::reactor loop;
  std::optional<result<std::string>> got;
  std::random_device random;
  snapshot::hello me;
  me.service = "cli";
  me.instance = fmt::format("cli-{}-{:08x}", ::getpid(), random());
  me.version = PGSLED_VERSION;
  me.pid = ::getpid();
  me.boot = fmt::format("{:08x}{:08x}", random(), random());

  bus::peer_options options;
  options.endpoint = endpoint;
  options.instance = me.instance;
  bus::peer::callbacks callbacks;
  callbacks.hello = [&] { return snapshot::to_json(me); };
  callbacks.snapshot = [](byte_span, std::uint64_t) {};
  callbacks.message = [](const bus::envelope&) {};
  callbacks.link = [](bool) {};
  {
    bus::peer router(loop, bus::make_context(), options, callbacks);
    router.start();
    constexpr std::string_view question = R"({"user":"","sql":"SHOW STATUS"})";
    router.ask(bus::kind::admin_request, as_bytes(question), patience,
               [&](result<bus::envelope> answer) {
                 if (answer) {
                   got = std::string(as_text(answer->payload));
                 } else {
                   got = result<std::string>(tl::unexpected<pg_error>(answer.error()));
                 }
                 loop.stop();
               });
    if (!got) loop.run();
  }
  return got ? std::move(*got) : failure("57P03", "no answer");
}

// An ipc endpoint without a socket file needs no waiting for.
bool is_absent(const std::string& endpoint) {
  constexpr std::string_view scheme = "ipc://";
  std::error_code ec;
  return endpoint.starts_with(scheme) && !endpoint.starts_with("ipc://@") &&
         !std::filesystem::exists(endpoint.substr(scheme.size()), ec);
}

}  // namespace

result<std::string> render_table(std::string_view answer) {
  const auto table = read(answer);
  if (!table) return tl::unexpected<pg_error>(table.error());
  std::vector<std::size_t> widths;
  for (const auto& name : table->columns) widths.push_back(name.size());
  std::vector<std::vector<std::string>> lines{table->columns};
  for (const auto& row : table->rows) {
    std::vector<std::string> line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line.push_back(show(row[i]));
      widths[i] = std::max(widths[i], line.back().size());
    }
    lines.push_back(std::move(line));
  }
  std::string text;
  for (const auto& line : lines) {
    std::string one;
    for (std::size_t i = 0; i < line.size(); ++i) {
      one += fmt::format("{:<{}}  ", line[i], widths[i]);
    }
    one.erase(one.find_last_not_of(' ') + 1);
    text += one + "\n";
  }
  return text;
}

result<std::string> render_json(std::string_view answer, std::string_view endpoint) {
  const auto table = read(answer);
  if (!table) return tl::unexpected<pg_error>(table.error());
  json::array processes;
  for (const auto& row : table->rows) {
    json::object one;
    for (std::size_t i = 0; i < row.size(); ++i) one[table->columns[i]] = row[i];
    processes.push_back(std::move(one));
  }
  json::object root;
  root["router"] = json::string_view(endpoint.data(), endpoint.size());
  root["processes"] = std::move(processes);
  return json::serialize(root) + "\n";
}

int status(const status_options& options) {
  const auto directory = options.run_dir.empty() ? default_run_dir() : options.run_dir;
  const auto endpoint =
      options.router.empty() ? fmt::format("ipc://{}/router.bus", directory) : options.router;
  if (is_absent(endpoint)) {
    fmt::print(stderr, "pgsled status: no router at {}\n", endpoint);
    return 1;
  }
  try {
    const auto answer = ask(endpoint);
    if (!answer) {
      const auto& error = answer.error();
      fmt::print(stderr, "pgsled status: {}: {}\n", endpoint, error.message);
      return 1;
    }
    const auto text = options.json ? render_json(*answer, endpoint) : render_table(*answer);
    if (!text) {
      fmt::print(stderr, "pgsled status: {}\n", text.error().message);
      return 1;
    }
    fmt::print("{}", *text);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "pgsled status: {}\n", error.what());
    return 1;
  }
}

}  // namespace pgsled::cli
