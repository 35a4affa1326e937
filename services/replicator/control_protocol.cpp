#include "services/replicator/control_protocol.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace pgsled::replicator {
namespace {

namespace json = boost::json;

constexpr int protocol_version = 1;

json::object error_answer(json::value id, std::string_view sqlstate, std::string_view message) {
  return {{"id", std::move(id)}, {"error", {{"sqlstate", sqlstate}, {"message", message}}}};
}

json::object status_answer(const status_report& s) {
  return {{"service", "replicator"},
          {"instance", s.instance},
          {"version", PGSLED_VERSION},
          {"pid", s.pid},
          {"boot", s.boot},
          {"uptime_ms", s.uptime_ms},
          {"state", s.state},
          {"router", {{"endpoint", s.router}, {"connected", s.connected}, {"epoch", s.epoch}}},
          {"jobs", json::array()}};
}

void append_line(std::string& to, const json::object& from) {
  to += json::serialize(from);
  to += '\n';
}

}  // namespace

std::string control_refusal(std::string_view sqlstate, std::string_view message) {
  std::string line;
  append_line(line, error_answer(nullptr, sqlstate, message));
  return line;
}

void control_protocol::feed(byte_span bytes, std::string& answers) {
  std::string_view rest = as_text(bytes);
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    const auto piece = rest.substr(0, end);
    if (!skipping_ && partial_.size() + piece.size() > max_line) {
      answers += control_refusal("54000", fmt::format("a line has at most {} bytes", max_line));
      partial_ = {};
      skipping_ = true;
    }
    if (!skipping_) partial_ += piece;
    if (end == std::string_view::npos) return;
    rest.remove_prefix(end + 1);
    if (!std::exchange(skipping_, false)) answer(partial_, answers);
    partial_.clear();
  }
}

void control_protocol::answer(std::string_view line, std::string& to) const {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.find_first_not_of(" \t") == std::string_view::npos) return;
  json::error_code ec;
  const json::value asked = json::parse(line, ec);
  if (ec)
    return append_line(to, error_answer(nullptr, "22032", "not JSON: " + ec.message()));
  if (!asked.is_object())
    return append_line(to, error_answer(nullptr, "22023", "a request is a JSON object"));
  const auto& object = asked.get_object();
  json::value id = nullptr;
  if (const auto* given = object.if_contains("id"); given != nullptr) {
    if (!given->is_number() && !given->is_string() && !given->is_null())
      return append_line(to, error_answer(nullptr, "22023", "\"id\" is a number or a text"));
    id = *given;
  }
  const auto* request = object.if_contains("request");
  if (request == nullptr || !request->is_string())
    return append_line(to, error_answer(id, "22023", "\"request\" is missing or no text"));
  const std::string_view name = request->get_string();
  if (name == "status")
    return append_line(to, {{"id", id}, {"result", status_answer(status_())}});
  if (name == "version")
    return append_line(
        to, {{"id", id},
             {"result", {{"version", PGSLED_VERSION}, {"protocol", protocol_version}}}});
  append_line(to, error_answer(id, "0A000",
                               fmt::format("request \"{}\" is not known", name.substr(0, 64))));
}

}  // namespace pgsled::replicator
