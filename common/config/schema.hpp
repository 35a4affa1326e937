#pragma once
// The declaration of every key: its name, type, default, range or choices, whether this version
// acts on it, and its help. Checking, SHOW CONFIG, docs/configuration.md and the examples are all
// made from these tables and from nothing else. The tables live for the life of the process.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pgsled::config {

enum class value_type {
  boolean,
  integer,
  duration,    // integer of milliseconds, or PgDog's largest integer for "never"
  number,      // integer or fraction
  string,
  choice,      // string out of `allowed`
  strings,     // array of strings
  scalars,     // array of integers and strings
  scalar,      // integer or string
  vectors,     // array of arrays of numbers
  string_map,  // table of strings
  tables,      // array of tables, described by `nested`
};

inline constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
// Milliseconds: a hundred years. Anything longer is read as never, so that sums cannot overflow.
inline constexpr std::int64_t longest_duration = 3'153'600'000'000;

struct section;

struct setting {
  std::string_view name = {};
  value_type type = value_type::string;
  std::string_view fallback = {};  // as written in TOML without quotes; "never"; empty: none
  std::string_view help = {};
  std::int64_t min = 0, max = largest;
  std::string_view allowed = {};  // choices, separated by '|'
  std::string_view alias = {};  // a second name PgDog accepts
  bool acted_on = true;
  bool required = false;
  bool secret = false;        // never shown
  bool filled = false;        // a string that must not be empty
  bool unlimited = false;     // "never" stands for no limit: `largest` means so
  bool zero_unlimited = false;   // and so does 0, as PgBouncer has it
  const section* nested = nullptr;

  constexpr setting later() const { auto copy = *this; copy.acted_on = false; return copy; }
  constexpr setting must() const {
    auto copy = *this;
    copy.required = copy.filled = true;
    return copy;
  }
  constexpr setting or_zero() const { auto copy = *this; copy.zero_unlimited = true; return copy; }
  constexpr setting up_to(std::int64_t most) const {
    auto copy = *this;
    copy.max = most;
    return copy;
  }
  constexpr setting hidden() const { auto copy = *this; copy.secret = true; return copy; }
  constexpr setting also(std::string_view other) const {
    auto copy = *this;
    copy.alias = other;
    return copy;
  }
};

constexpr setting flag(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name, .type = value_type::boolean, .fallback = fallback, .help = help};
}
constexpr setting count(std::string_view name, std::string_view fallback, std::int64_t min,
                        std::int64_t max, std::string_view help) {
  return {.name = name, .type = value_type::integer, .fallback = fallback, .help = help,
          .min = min, .max = max};
}
constexpr setting limit(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name, .type = value_type::integer, .fallback = fallback, .help = help,
          .unlimited = true};
}
constexpr setting port(std::string_view name, std::string_view fallback, std::string_view help) {
  return count(name, fallback, 1, 65535, help);
}
constexpr setting duration(std::string_view name, std::string_view fallback,
                           std::string_view help) {
  return {.name = name, .type = value_type::duration, .fallback = fallback, .help = help,
          .unlimited = true};
}
constexpr setting number(std::string_view name, std::string_view fallback, std::int64_t min,
                         std::int64_t max, std::string_view help) {
  return {.name = name, .type = value_type::number, .fallback = fallback, .help = help,
          .min = min, .max = max};
}
constexpr setting text(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name, .type = value_type::string, .fallback = fallback, .help = help};
}
constexpr setting choice(std::string_view name, std::string_view allowed,
                         std::string_view fallback, std::string_view help) {
  return {.name = name, .type = value_type::choice, .fallback = fallback, .help = help,
          .allowed = allowed};
}
constexpr setting of_type(std::string_view name, value_type type, std::string_view help) {
  return {.name = name, .type = type, .help = help};
}

struct section {
  std::string_view name = {};
  bool repeated = false;    // [[name]]
  bool acted_on = true;     // false: no key of it is
  bool open = false;        // keys we do not know are accepted (schemas that are not published)
  std::string_view help = {};
  std::span<const setting> settings = {};

  const setting* find(std::string_view key) const;  // by name or alias
};

std::span<const setting> general_settings();
std::span<const section> pgdog_sections();  // of pgdog.toml, [general] first
std::span<const section> users_sections();  // of users.toml
const section& section_of(std::span<const section>, std::string_view name);  // must exist

std::string type_text(const setting&);      // "integer", "true or false", …
std::string allowed_text(const setting&);   // "1 … 65535", "on, off, auto"; may be empty
std::vector<std::string_view> choices(const setting&);
// The nearest of `known` to `given`, or nothing when none is near.
std::string_view nearest(std::string_view given, std::span<const std::string_view> known);

}  // namespace pgsled::config
