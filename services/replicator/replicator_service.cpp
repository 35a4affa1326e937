#include "services/replicator/replicator_service.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <ctime>
#include <filesystem>

#include "common/log/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/snapshot/snapshot.hpp"

namespace pgsled::replicator {
namespace {

namespace json = boost::json;

// Long enough for the farewell to leave: sockets do not linger.
constexpr std::chrono::milliseconds farewell{100};

// The text of a key of a JSON object; empty for anything else.
std::string text_of(byte_span payload, const char* key, bool* flag = nullptr) {
  json::error_code ec;
  const auto parsed = json::parse(as_text(payload), ec);
  if (ec || !parsed.is_object()) return {};
  const auto& object = parsed.get_object();
  if (flag != nullptr) {
    const auto* open = object.if_contains("openmetrics");
    *flag = open != nullptr && open->is_bool() && open->get_bool();
  }
  const auto* value = object.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(std::string_view(value->get_string()));
}

}  // namespace

replicator_service::replicator_service(app::process& process) : process_(process) {}
replicator_service::~replicator_service() = default;

app::hooks replicator_service::hooks() {
  app::hooks out;
  out.run = [this] { return run(); };
  out.drain = [this] { loop_.post([this] { drain(); }); };
  out.ready = [this] { return missing(); };
  return out;
}

int replicator_service::run() {
  const auto& options = process_.opts();
  if (const auto open = open_splitting(); !open) {
    log::error("copy", "{}", open.error().message);
    return 1;
  }
  bus::peer_options link;
  link.endpoint = options.router;
  link.instance = options.instance;
  link.curve = app::load_curve(options.curve_dir);
  bus::peer::callbacks up;
  up.hello = [this] { return hello(); };
  up.snapshot = [this](byte_span text, std::uint64_t epoch) { apply(text, epoch); };
  up.message = [this](const bus::envelope& e) { receive(e); };
  up.link = [this](bool there) { connected_ = there; };
  router_ = std::make_unique<bus::peer>(loop_, process_.bus(), std::move(link), std::move(up));
  moves_ = std::make_unique<move_service>(loop_, *router_);
  control_ = std::make_unique<control_server>(
      loop_, options.run_dir + "/" + options.instance + ".control", [this] { return status(); },
      moves_->hooks());
  if (const auto started = control_->start(); !started) {
    log::error("control", "{}", started.error().message);
    return 1;
  }
  router_->start();
  loop_.run();
  splitting_.reset();
  control_.reset();
  moves_.reset();
  router_.reset();
  return 0;
}

// Frontends come by a socket in the run directory, or by tcp with the replicator's own CURVE pair.
result<bool> replicator_service::open_splitting() {
  const auto& options = process_.opts();
  bus::curve_keys keys;
  auto endpoint = options.relay;
  if (endpoint.empty()) {
    const auto path = std::filesystem::absolute(options.run_dir) / (options.instance + ".copy");
    endpoint = "ipc://" + path.lexically_normal().string();
  }
  if (!endpoint.starts_with("ipc:")) {
    const auto own = app::load_curve(options.curve_dir);
    keys = {own.public_key, own.secret_key, {}};
    known_clients_ = app::load_curve_clients(options.curve_dir);
  }
  splitting_ = std::make_unique<split_server>(loop_, process_.bus(), endpoint, keys);
  splitting_->allow(known_clients_);
  auto bound = splitting_->start();
  if (!bound) return tl::unexpected(std::move(bound.error()));
  split_endpoint_ = std::move(*bound);
  split_key_ = keys.public_key;
  return true;
}

void replicator_service::drain() {
  if (draining_.exchange(true)) return;
  log::info("replicator", "draining");
  if (moves_) moves_->stop();
  if (!router_) return loop_.stop();
  router_->tell(bus::kind::bye, {});
  splitting_->drain();
  drain_until_ = loop_.now() + shutdown_timeout_;
  // The farewell leaves, and those that have chosen this replicator before they heard it are told.
  loop_.after(farewell, [this] { leave_when_idle(); });
}

void replicator_service::leave_when_idle() {
  if (splitting_->active() == 0 || loop_.now() >= drain_until_) return loop_.stop();
  loop_.after(farewell, [this] { leave_when_idle(); });
}

std::string replicator_service::hello() const {
  const auto& options = process_.opts();
  snapshot::hello out;
  out.service = options.service;
  out.instance = options.instance;
  out.version = PGSLED_VERSION;
  out.pid = ::getpid();
  out.boot = process_.boot();
  out.host = app::host_identity();
  out.http = process_.http_address();
  out.relay = split_endpoint_;
  out.relay_key = split_key_;
  return snapshot::to_json(out);
}

void replicator_service::apply(byte_span text, std::uint64_t epoch) {
  const auto got = snapshot::from_json<snapshot::replicator>(as_text(text));
  if (!got) {
    log::error("replicator", "the router's snapshot cannot be used: {}", got.error().message);
    return;
  }
  log::configure(got->log_level, got->log_format);
  moves_->configure(*got);
  shutdown_timeout_ = std::chrono::milliseconds(got->shutdown_timeout);
  auto keys = got->relay_client_keys;
  keys.insert(keys.end(), known_clients_.begin(), known_clients_.end());
  splitting_->allow(keys);
  epoch_ = epoch;
  configured_ = true;
  router_->acknowledge(epoch);
}

void replicator_service::receive(const bus::envelope& e) {
  switch (e.header.kind) {
    case bus::kind::gather: return answer_gather(e);
    case bus::kind::command: {
      const auto command = text_of(e.payload, "command");
      if (command == "shutdown") return drain();
      return log::warn("replicator", "the command \"{}\" is not known", command);
    }
    default: break;
  }
}

namespace {

json::array rows_of(const std::vector<move_progress>& moves) {
  json::array rows;
  for (const auto& one : moves) rows.push_back(json::object{{"move", to_json(one)}});
  return rows;
}

std::string utc(std::int64_t ms) {
  const std::time_t at = ms / 1000;
  std::tm parts{};
  ::gmtime_r(&at, &parts);
  std::array<char, 32> text{};
  const auto size = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return {text.data(), size};
}

// The columns of PgDog's SHOW TASKS.
json::array tasks_of(const std::vector<move_progress>& moves) {
  json::array rows;
  for (const auto& one : moves) {
    const bool runs = one.outcome == "running";
    const auto until = runs || one.ended == 0 ? unix_ms() : one.ended;
    const auto ms = std::max<std::int64_t>(until - one.began, 0);
    const char* status = runs                        ? "running"
                         : one.outcome == "aborted"  ? "cancelled"
                         : one.outcome == "failed"   ? "failed"
                         : one.outcome == "lost"     ? "panicked"
                                                     : "finished";
    rows.push_back(json::object{
        {"id", one.job},
        {"scope", one.database},
        {"type", one.goal.empty() ? "reshard" : one.goal},
        {"status", status},
        {"inner_status", one.error.empty() ? one.step : one.step + ": " + one.error},
        {"started_at", utc(one.began)},
        {"updated_at", utc(until)},
        {"elapsed", fmt::format("{:02}:{:02}:{:02}", ms / 3'600'000, ms / 60'000 % 60,
                                ms / 1000 % 60)},
        {"elapsed_ms", ms}});
  }
  return rows;
}

// The columns of PgDog's SHOW REPLICATION_SLOTS.
json::array slots_of(const std::vector<move_progress>& moves) {
  json::array rows;
  for (const auto& one : moves) {
    if (one.outcome != "running") continue;
    for (const auto& slot : one.slots) {
      rows.push_back(json::object{{"host", slot.host},
                                  {"port", slot.port},
                                  {"database_name", slot.database},
                                  {"name", slot.name},
                                  {"lsn", slot.position},
                                  {"lag", fmt::format("{} kB", slot.lag / 1024)},
                                  {"lag_bytes", slot.lag},
                                  {"copy_data", slot.copies},
                                  {"last_transaction", utc(slot.changed)},
                                  {"last_transaction_ms", unix_ms() - slot.changed}});
    }
  }
  return rows;
}

}  // namespace

// A move that the admin database asks for: its job, or why not.
boost::json::array replicator_service::start_move(byte_span asked) {
  const auto shard = text_of(asked, "shard");
  std::optional<std::int64_t> number;
  if (!shard.empty()) {
    std::int64_t read = 0;
    const auto [end, ec] = std::from_chars(shard.data(), shard.data() + shard.size(), read);
    number = ec == std::errc() && end == shard.data() + shard.size() ? read : -1;
  }
  const auto order = read_order(text_of(asked, "database"), text_of(asked, "kind"), number,
                                text_of(asked, "to"), text_of(asked, "cutover"));
  const auto job = order ? moves_->hooks().start(*order) : tl::unexpected(order.error());
  if (!job) {
    return {json::object{{"sqlstate", job.error().sqlstate}, {"error", job.error().message}}};
  }
  return {json::object{{"job", *job}}};
}

// What the admin database asks of a move to another cluster; empty when it does not run here.
boost::json::array replicator_service::act_on_move(byte_span asked) {
  using wish = job_runner::wish;
  const auto job = text_of(asked, "job"), what = text_of(asked, "do");
  std::optional<result<bool>> done;
  if (what == "roll_back") {
    done = moves_->act_own(job, wish::roll_back);
  } else if (what == "finish") {
    done = moves_->act_own(job, wish::finish);
  } else {
    // PgDog's CUTOVER: on to the new servers, and from there back again.
    done = moves_->act_own(job, wish::cut_over);
    if (done && !*done && what.empty()) done = moves_->act_own(job, wish::roll_back);
  }
  if (!done) return {};
  if (*done) return {json::object{{"done", true}}};
  return {json::object{{"sqlstate", done->error().sqlstate}, {"error", done->error().message}}};
}

void replicator_service::answer_gather(const bus::envelope& e) {
  bool openmetrics = false;
  const auto what = text_of(e.payload, "what", &openmetrics);
  json::object out;
  if (what == "metrics")
    out["text"] = metrics::process_registry().expose({}, openmetrics);
  else if (what == "ready")
    out["rows"] = json::array{json::object{{"missing", missing()}}};
  else if (what == "moves")
    out["rows"] = rows_of(moves_->moves());
  else if (what == "tasks")
    out["rows"] = tasks_of(moves_->moves());
  else if (what == "replication_slots")
    out["rows"] = slots_of(moves_->moves());
  else if (what == "start_move")
    out["rows"] = start_move(e.payload);
  else if (what == "cutover_move")
    out["rows"] = act_on_move(e.payload);
  else if (what == "abort_move" && moves_->abort_own(text_of(e.payload, "job")))
    out["rows"] = json::array{json::object{{"aborted", true}}};
  else
    out["rows"] = json::array();
  router_->tell(bus::kind::gather_answer, as_bytes(json::serialize(out)), e.header.request);
}

std::string replicator_service::missing() const {
  if (draining_) return "draining";
  if (!configured_) return "no configuration from the router yet";
  if (!connected_) return "the router cannot be reached";
  return {};
}

status_report replicator_service::status() const {
  status_report out;
  out.instance = process_.opts().instance;
  out.boot = process_.boot();
  out.router = process_.opts().router;
  out.pid = ::getpid();
  out.uptime_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(loop_.now() - began_).count();
  out.connected = connected_;
  out.epoch = epoch_;
  out.state = draining_      ? "draining"
              : !configured_ ? "starting"
              : connected_   ? "ready"
                             : "disconnected";
  return out;
}

}  // namespace pgsled::replicator
