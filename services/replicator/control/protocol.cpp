#include "services/replicator/control/protocol.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

namespace pgsled::replicator {
namespace {

namespace json = boost::json;

constexpr int protocol_version = 1;
constexpr std::int64_t largest_shard = 1023, no_shard = -1;

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
                  {"goal", p.goal},
                  {"step", p.step},
                  {"outcome", p.outcome},
                  {"automatic", p.automatic},
                  {"began", p.began},
                  {"round", p.round},
                  {"destination", p.destination},
                  {"buckets", p.buckets},
                  {"moving", p.moving},
                  {"rows", p.rows},
                  {"rows_expected", p.rows_expected},
                  {"rows_per_s", p.rows_per_s},
                  {"left_ms", p.left_ms},
                  {"bytes", p.bytes},
                  {"changes", p.changes},
                  {"lag_bytes", p.lag},
                  {"fences", p.fences},
                  {"fence_ms", p.fence_ms},
                  {"missing", texts(p.missing)},
                  {"warnings", texts(p.warnings)}};
  if (p.outcome == "checked") {
    json::array coming;
    for (const auto& one : p.coming) {
      coming.push_back(json::object{{"table", one.table}, {"rows", one.rows},
                                    {"bytes", one.bytes}});
    }
    to["coming"] = std::move(coming);
    to["log_limit_bytes"] = p.log_limit;
  }
  if (p.next_try_ms >= 0) to["next_try_ms"] = p.next_try_ms;
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

std::int64_t number_of(const json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
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

namespace {

result<reshard_order> read_shard_order(std::string database, std::string_view kind,
                                       std::optional<std::int64_t> shard) {
  const auto known = moving::goal_kind_of(kind);
  if (!known) {
    return failure("0A000", "\"kind\" is add-shard, remove-shard, rebalance, new-cluster or "
                            "schema-sync in this version");
  }
  if (shard && (*shard < 0 || *shard > largest_shard)) {
    return failure("22023", "\"shard\" is the number of a shard");
  }
  if (*known == moving::goal_kind::remove_shard && !shard) {
    return failure("22023", "remove-shard needs \"shard\", its number");
  }
  reshard_order order{std::move(database), *known, {}, false};
  if (shard) order.shard = static_cast<std::uint32_t>(*shard);
  return order;
}

result<reshard_order> read_cluster_order(std::string database, std::string_view kind,
                                         std::string to, std::string_view cutover) {
  if (to.empty()) {
    return failure("22023", fmt::format("{} needs \"to\", the other database", kind));
  }
  if (!cutover.empty() && cutover != "automatic" && cutover != "wait") {
    return failure("22023", "\"cutover\" is automatic or wait");
  }
  reshard_order order;
  order.database = std::move(database);
  order.to = std::move(to);
  order.automatic_cutover = cutover != "wait";
  order.only_schema = kind == schema_sync;
  return order;
}

}  // namespace

result<reshard_order> read_order(std::string database, std::string_view kind,
                                 std::optional<std::int64_t> shard, std::string to,
                                 std::string_view cutover) {
  return kind == new_cluster || kind == schema_sync
             ? read_cluster_order(std::move(database), kind, std::move(to), cutover)
             : read_shard_order(std::move(database), kind, shard);
}

std::string to_json(const move_progress& of) { return json::serialize(move_answer(of)); }

std::string control_refusal(std::string_view sqlstate, std::string_view message) {
  std::string line;
  append_line(line, error_answer(nullptr, sqlstate, message));
  return line;
}

void control_protocol::feed(byte_span bytes, std::string& answers) {
  lines(as_text(bytes), answers);
  collect(answers);
}

// Answers that have come, and what was asked behind them.
void control_protocol::collect(std::string& to) {
  while (!ready_.empty()) {
    to += std::exchange(ready_, {});
    lines(std::exchange(held_, {}), to);
  }
}

void control_protocol::lines(std::string_view rest, std::string& answers) {
  while (!rest.empty()) {
    if (waiting_ || !ready_.empty()) {
      held_ += rest;
      return;
    }
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
  collect(to);
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
  const auto id_text = json::serialize(id);
  if (reshard_.list && name == "reshard-list") return list(id_text);
  if (reshard_.list && name == "reshard-start") return start(object, id_text, to);
  if (reshard_.list && name == "reshard-abort") return abort(id_text, text_of(object, "job"));
  if (reshard_.list && name == "reshard-cutover") {
    return act(id_text, text_of(object, "job"), job_runner::wish::cut_over);
  }
  if (reshard_.list && name == "reshard-roll-back") {
    return act(id_text, text_of(object, "job"), job_runner::wish::roll_back);
  }
  if (reshard_.list && name == "reshard-finish") {
    return act(id_text, text_of(object, "job"), job_runner::wish::finish);
  }
  if (reshard_.list && name == "reshard-watch") {
    if (watching()) {
      return append_line(to, error_answer(id, "55006", "a move is watched here already"));
    }
    watched_ = text_of(object, "job");
    watch_id_ = id_text;
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

std::function<void(std::string line)> control_protocol::later() {
  waiting_ = true;
  return [this, alive = std::weak_ptr<bool>(alive_)](std::string line) {
    if (alive.expired()) return;
    ready_ += line;
    waiting_ = false;
  };
}

void control_protocol::start(const json::object& object, const std::string& id_text,
                             std::string& to) {
  const json::value id = json::parse(id_text);
  std::optional<std::int64_t> number;
  if (const auto* shard = object.if_contains("shard"); shard != nullptr && !shard->is_null()) {
    number = shard->is_int64() ? shard->get_int64() : no_shard;
  }
  auto order = read_order(text_of(object, "database"), text_of(object, "kind"), number,
                          text_of(object, "to"), text_of(object, "cutover"));
  if (!order) {
    return append_line(to, error_answer(id, order.error().sqlstate, order.error().message));
  }
  const auto* dry = object.if_contains("dry_run");
  order->dry_run = dry != nullptr && dry->is_bool() && dry->get_bool();
  const auto job = reshard_.start(*order);
  if (!job) return append_line(to, error_answer(id, job.error().sqlstate, job.error().message));
  append_line(to, {{"id", id}, {"result", {{"job", *job}}}});
}

void control_protocol::list(const std::string& id) {
  reshard_.list_all([id, tell = later()](bool complete, const std::vector<std::string>& moves) {
    std::vector<json::object> all;
    for (const auto& one : moves) {
      json::error_code ec;
      auto read = json::parse(one, ec);
      if (!ec && read.is_object()) all.push_back(std::move(read.get_object()));
    }
    // One that waits for a replicator, as the router says, may have found it meanwhile.
    std::erase_if(all, [&, copy = all](const json::object& one) {
      return text_of(one, "outcome") == "waiting" &&
             std::any_of(copy.begin(), copy.end(), [&](const json::object& other) {
               return text_of(other, "job") == text_of(one, "job") &&
                      text_of(other, "outcome") == "running";
             });
    });
    std::stable_sort(all.begin(), all.end(), [](const json::object& a, const json::object& b) {
      return number_of(a, "began") < number_of(b, "began");
    });
    json::array jobs;
    for (auto& one : all) jobs.push_back(std::move(one));
    std::string line;
    append_line(line, {{"id", json::parse(id)},
                       {"result", {{"jobs", std::move(jobs)}, {"complete", complete}}}});
    tell(std::move(line));
  });
}

void control_protocol::act(const std::string& id, const std::string& job,
                           job_runner::wish what) {
  reshard_.act(job, what, answered(id));
}

void control_protocol::abort(const std::string& id, const std::string& job) {
  reshard_.abort(job, answered(id));
}

std::function<void(result<bool>)> control_protocol::answered(const std::string& id) {
  return [id, tell = later()](const result<bool>& done) {
    std::string line;
    if (done) {
      append_line(line, {{"id", json::parse(id)}, {"result", json::object()}});
    } else {
      append_line(line, error_answer(json::parse(id), done.error().sqlstate,
                                     done.error().message));
    }
    tell(std::move(line));
  };
}

}  // namespace pgsled::replicator
