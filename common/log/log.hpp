#pragma once
// Structured log lines on standard error, text or JSON. Any thread. Never SQL text, parameters or
// secrets above `trace`.

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace pgsled::log {

enum class level { trace, debug, info, warn, error, off };

// `instance` stands in every line. Format "text", "json" or "json_flattened".
void start(std::string_view service, std::string_view instance);
void configure(std::string_view level_name, std::string_view format);
bool enabled(level);
void write(level, std::string_view component, fmt::string_view format, fmt::format_args);

template <class... Args>
void debug(std::string_view component, fmt::format_string<Args...> text, Args&&... args) {
  if (enabled(level::debug)) write(level::debug, component, text, fmt::make_format_args(args...));
}
template <class... Args>
void info(std::string_view component, fmt::format_string<Args...> text, Args&&... args) {
  if (enabled(level::info)) write(level::info, component, text, fmt::make_format_args(args...));
}
template <class... Args>
void warn(std::string_view component, fmt::format_string<Args...> text, Args&&... args) {
  if (enabled(level::warn)) write(level::warn, component, text, fmt::make_format_args(args...));
}
template <class... Args>
void error(std::string_view component, fmt::format_string<Args...> text, Args&&... args) {
  if (enabled(level::error)) write(level::error, component, text, fmt::make_format_args(args...));
}

}  // namespace pgsled::log
