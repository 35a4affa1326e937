#include "common/log/log.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <mutex>

#include "common/log/json_escape.hpp"

namespace pgsled::log {
namespace {

enum class format { text, json, json_flattened };

struct configuration {
  std::mutex mutex;  // guards service and instance, which change only at start
  std::string service = "pgsled", instance;
  std::atomic<level> threshold{level::info};
  std::atomic<format> lines{format::text};
  std::shared_ptr<spdlog::logger> logger;
};

configuration& current() {
  static configuration* const it = [] {  // never destroyed: threads may log until the very end
    auto* made = new configuration;
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    made->logger = std::make_shared<spdlog::logger>("pgsled", std::move(sink));
    made->logger->set_level(spdlog::level::trace);
    made->logger->set_pattern("%v");  // the whole line is made below
    return made;
  }();
  return *it;
}

constexpr std::string_view names[] = {"trace", "debug", "info", "warn", "error", "off"};

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::system_clock::to_time_t(now);
  const auto us =
      std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     us % 1'000'000);
}

}  // namespace

void start(std::string_view service, std::string_view instance) {
  configuration& c = current();
  const std::lock_guard lock(c.mutex);
  c.service = service;
  c.instance = instance;
}

void configure(std::string_view level_name, std::string_view format_name) {
  configuration& c = current();
  for (std::size_t i = 0; i < std::size(names); ++i)
    if (names[i] == level_name || (level_name == "warning" && names[i] == "warn"))
      c.threshold.store(static_cast<level>(i));
  if (format_name == "text") c.lines.store(format::text);
  if (format_name == "json") c.lines.store(format::json);
  if (format_name == "json_flattened") c.lines.store(format::json_flattened);
}

bool enabled(level at) {
  return at >= current().threshold.load(std::memory_order_relaxed) && at != level::off;
}

void write(level at, std::string_view component, fmt::string_view text, fmt::format_args args) {
  configuration& c = current();
  const std::string message = fmt::vformat(text, args);
  const std::string_view name = names[static_cast<std::size_t>(at)];
  std::string service, instance;
  {
    const std::lock_guard lock(c.mutex);
    service = c.service;
    instance = c.instance;
  }
  std::string line;
  switch (c.lines.load(std::memory_order_relaxed)) {
    case format::text:
      line = fmt::format("{} {:5} {} {}: ", timestamp(), name, instance, component);
      append_single_line(line, message);
      break;
    case format::json:  // what the line says apart from what it is about, as PgDog's readers expect
      line = fmt::format(
          R"({{"timestamp":"{}","level":"{}","fields":{{"message":"{}"}},)"
          R"("target":"{}","service":"{}","instance":"{}"}})",
          timestamp(), name, json_escape(message), json_escape(component), json_escape(service),
          json_escape(instance));
      break;
    case format::json_flattened:
      line = fmt::format(
          R"({{"timestamp":"{}","level":"{}","message":"{}",)"
          R"("target":"{}","service":"{}","instance":"{}"}})",
          timestamp(), name, json_escape(message), json_escape(component), json_escape(service),
          json_escape(instance));
      break;
  }
  constexpr spdlog::level::level_enum levels[] = {spdlog::level::trace, spdlog::level::debug,
                                                  spdlog::level::info,  spdlog::level::warn,
                                                  spdlog::level::err,   spdlog::level::off};
  c.logger->log(levels[static_cast<std::size_t>(at)], spdlog::string_view_t(line));
}

}  // namespace pgsled::log
