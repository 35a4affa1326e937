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

json::array texts(const std::vector<std::string>& from) {
  json::array to;
  for (const auto& one : from) to.emplace_back(one);
  return to;
}

json::object move_answer(const move_progress& p) {
  json::object to{{"job", p.job},
                  {"database", p.database},
                  {"step", p.step},
                  {"outcome", p.outcome},
                  {"destination", p.destination},
                  {"buckets", p.buckets},
                  {"moving", p.moving},
                  {"rows", p.rows},
                  {"bytes", p.bytes},
                  {"changes", p.changes},
                  {"lag_bytes", p.lag},
                  {"fences", p.fences},
                  {"fence_ms", p.fence_ms},
                  {"missing", texts(p.missing)},
                  {"warnings", texts(p.warnings)}};
  if (!p.error.empty()) {
    to["error"] = json::object{{"sqlstate", p.sqlstate}, {"message", p.error}};
  }
  return to;
}

std::string text_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(std::string_view(value->get_string()));
}

json::object status_answer(const status_report& s, json::array jobs) {
  return {{"service", "replicator"},
          {"instance", s.instance},
          {"version", PGSLED_VERSION},
          {"pid", s.pid},
          {"boot", s.boot},
          {"uptime_ms", s.uptime_ms},
          {"state", s.state},
          {"router", {{"endpoint", s.router}, {"connected", s.connected}, {"epoch", s.epoch}}},
          {"jobs", std::move(jobs)}};
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

void control_protocol::tick(std::string& to) {
  if (watched_.empty()) return;
  const json::value id = json::parse(watch_id_);
  for (const move_progress& one : reshard_.list()) {
    if (one.job != watched_) continue;
    if (one.outcome != "running") {
      watched_.clear();
      return append_line(to, {{"id", id}, {"result", move_answer(one)}});
    }
    const json::object event{{"id", id}, {"event", move_answer(one)}};
    auto text = json::serialize(event);
    if (text != told_) append_line(to, event);
    told_ = std::move(text);
    return;
  }
  append_line(to, error_answer(id, "42704",
                               fmt::format("the move {} is not known here", watched_)));
  watched_.clear();
}

void control_protocol::answer(std::string_view line, std::string& to) {
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
  if (name == "status") {
    json::array jobs;
    for (const auto& one : reshard_.list ? reshard_.list() : std::vector<move_progress>()) {
      if (one.outcome == "running") jobs.push_back(move_answer(one));
    }
    return append_line(to, {{"id", id}, {"result", status_answer(status_(), std::move(jobs))}});
  }
  if (reshard_.list && name == "reshard-list") {
    json::array jobs;
    for (const auto& one : reshard_.list()) jobs.push_back(move_answer(one));
    return append_line(to, {{"id", id}, {"result", {{"jobs", std::move(jobs)}}}});
  }
  if (reshard_.list && name == "reshard-start") {
    const auto* dry = object.if_contains("dry_run");
    const auto kind = text_of(object, "kind");
    if (kind != "add-shard") {
      return append_line(to, error_answer(id, "0A000", "\"kind\" is add-shard in this version"));
    }
    const auto job = reshard_.start(text_of(object, "database"),
                                    dry != nullptr && dry->is_bool() && dry->get_bool());
    if (!job) return append_line(to, error_answer(id, job.error().sqlstate, job.error().message));
    return append_line(to, {{"id", id}, {"result", {{"job", *job}}}});
  }
  if (reshard_.list && name == "reshard-abort") {
    const auto done = reshard_.abort(text_of(object, "job"));
    if (!done) {
      return append_line(to, error_answer(id, done.error().sqlstate, done.error().message));
    }
    return append_line(to, {{"id", id}, {"result", json::object()}});
  }
  if (reshard_.list && name == "reshard-watch") {
    if (watching()) {
      return append_line(to, error_answer(id, "55006", "a move is watched here already"));
    }
    watched_ = text_of(object, "job");
    watch_id_ = json::serialize(id);
    told_.clear();
    if (watched_.empty()) {
      return append_line(to, error_answer(id, "22023", "\"job\" is missing or no text"));
    }
    return tick(to);
  }
  if (name == "version")
    return append_line(
        to, {{"id", id},
             {"result", {{"version", PGSLED_VERSION}, {"protocol", protocol_version}}}});
  append_line(to, error_answer(id, "0A000",
                               fmt::format("request \"{}\" is not known", name.substr(0, 64))));
}

}  // namespace pgsled::replicator
