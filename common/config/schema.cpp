#include "common/config/schema.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/result.hpp"

namespace pgsled::config {

const setting* section::find(std::string_view key) const {
  for (const auto& one : settings) {
    if (one.name == key || (!one.alias.empty() && one.alias == key)) return &one;
  }
  return nullptr;
}

const section& section_of(std::span<const section> sections, std::string_view name) {
  const auto at = std::find_if(sections.begin(), sections.end(),
                               [&](const section& one) { return one.name == name; });
  PGSLED_ASSERT(at != sections.end());
  return *at;
}

std::vector<std::string_view> choices(const setting& of) {
  std::vector<std::string_view> all;
  for (std::string_view rest = of.allowed; !rest.empty();) {
    const auto bar = rest.find('|');
    all.push_back(rest.substr(0, bar));
    rest = bar == std::string_view::npos ? std::string_view{} : rest.substr(bar + 1);
  }
  return all;
}

std::string type_text(const setting& of) {
  switch (of.type) {
    case value_type::boolean: return "true or false";
    case value_type::integer: return "an integer";
    case value_type::duration: return "an integer (milliseconds)";
    case value_type::number: return "a number";
    case value_type::string: return "a string";
    case value_type::choice: return "a string";
    case value_type::strings: return "a list of strings";
    case value_type::scalars: return "a list of integers or strings";
    case value_type::scalar: return "an integer or a string";
    case value_type::vectors: return "a list of lists of numbers";
    case value_type::string_map: return "a table of strings";
    case value_type::tables: return "a list of tables";
  }
  return {};
}

std::string allowed_text(const setting& of) {
  switch (of.type) {
    case value_type::integer:
    case value_type::number:
      if (of.max == largest) return fmt::format("{} or more", of.min);
      return fmt::format("{} to {}", of.min, of.max);
    case value_type::duration:
      if (of.max != largest) return fmt::format("{} to {}, or never", of.min, of.max);
      return fmt::format("{} or more", of.min);
    case value_type::choice:
      return fmt::format("{}", fmt::join(choices(of), ", "));
    case value_type::string:
      return of.filled ? "not empty" : "";
    default:
      return {};
  }
}

namespace {

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view nearest(std::string_view given, std::span<const std::string_view> known) {
  if (given.size() > 100) return {};
  std::string_view best;
  std::size_t least = std::max<std::size_t>(2, given.size() / 3) + 1;
  for (const auto one : known) {
    if (const auto apart = distance(given, one); apart < least) {
      least = apart;
      best = one;
    }
  }
  return best;
}

}  // namespace pgsled::config
