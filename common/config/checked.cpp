#include "common/config/checked.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace pgsled::config {

void findings::wrong(const std::string& file, int line, std::string key, std::string text) {
  if (mistakes.size() < most) mistakes.push_back({file, line, std::move(key), std::move(text)});
}
void findings::warn(const std::string& file, int line, std::string key, std::string text) {
  if (warnings.size() < most) warnings.push_back({file, line, std::move(key), std::move(text)});
}
void findings::unacted(const std::string& file, int line, const std::string& key) {
  for (auto& one : ignored) {
    if (one.file == file && one.key == key) {
      ++one.times;
      return;
    }
  }
  if (ignored.size() < most) ignored.push_back({file, key, line, 1});
}

const setting& entry::declared(std::string_view key) const {
  const auto* found = schema->find(key);
  PGSLED_ASSERT(found != nullptr);
  return *found;
}

int entry::line_of(std::string_view key) const {
  const auto at = given.find(key);
  return at == given.end() ? line : at->second->line;
}

std::optional<bool> entry::maybe_flag(std::string_view key) const {
  if (const auto at = given.find(key); at != given.end()) return at->second->boolean;
  const auto fallback = declared(key).fallback;
  return fallback.empty() ? std::nullopt : std::optional(fallback == "true");
}
bool entry::flag(std::string_view key) const { return maybe_flag(key).value_or(false); }

std::optional<std::string> entry::maybe_text(std::string_view key) const {
  if (const auto at = given.find(key); at != given.end()) return at->second->string;
  const auto fallback = declared(key).fallback;
  return fallback.empty() ? std::nullopt : std::optional(std::string(fallback));
}
std::string entry::text(std::string_view key) const { return maybe_text(key).value_or(""); }

std::vector<std::string> entry::texts(std::string_view key) const {
  std::vector<std::string> all;
  if (const auto at = given.find(key); at != given.end()) {
    for (const auto& item : at->second->items) all.push_back(item.string);
  }
  return all;
}

std::optional<std::int64_t> entry::maybe_number(std::string_view key) const {
  const auto& setting = declared(key);
  std::int64_t value = 0;
  if (const auto at = given.find(key); at != given.end()) {
    value = at->second->integer;
  } else if (setting.fallback.empty()) {
    return std::nullopt;
  } else if (setting.fallback == "never") {
    return never;
  } else {
    const auto* first = setting.fallback.data();
    std::from_chars(first, first + setting.fallback.size(), value);
  }
  if (setting.unlimited && value == largest) return never;
  if (setting.zero_unlimited && value == 0) return never;
  if (setting.type == value_type::duration && value > longest_duration) return never;
  return value;
}
std::int64_t entry::number(std::string_view key) const { return maybe_number(key).value_or(never); }

namespace {

std::string show(const node& value) {
  switch (value.kind) {
    case node::type::boolean: return value.boolean ? "true" : "false";
    case node::type::integer: return std::to_string(value.integer);
    case node::type::number: return fmt::format("{}", value.number);
    case node::type::string: return value.string;
    case node::type::date: return {};
    case node::type::array: {
      std::string all;
      for (const auto& item : value.items) all += (all.empty() ? "" : ", ") + show(item);
      return "[" + all + "]";
    }
    case node::type::table: {
      std::string all;
      for (const auto& [key, item] : value.entries) {
        all += (all.empty() ? "" : ", ") + key + " = " + show(item);
      }
      return "{" + all + "}";
    }
  }
  return {};
}

}  // namespace

std::string entry::shown(const setting& of) const {
  const auto at = given.find(of.name);
  if (of.secret) return at == given.end() ? "" : "****";
  if (of.unlimited) {
    const auto value = maybe_number(of.name);
    return value ? (*value == never ? "never" : std::to_string(*value)) : "";
  }
  return at == given.end() ? std::string(of.fallback) : show(*at->second);
}

const std::vector<entry>& checked_file::all(std::string_view section) const {
  static const std::vector<entry> none;
  const auto at = sections.find(section);
  return at == sections.end() ? none : at->second;
}

const entry& checked_file::only(std::string_view section) const {
  const auto& found = all(section);
  PGSLED_ASSERT(!found.empty());  // check() leaves an empty entry where none is given
  return found.front();
}

namespace {

class checker {
 public:
  checker(checked_file& file, std::span<const section> sections, findings& found)
      : file_(file), sections_(sections), found_(found) {}

  void run() {
    for (const auto& [key, value] : file_.root.entries) top(key, value);
    for (const auto& section : sections_) {
      auto& entries = file_.sections[section.name];
      if (entries.empty() && !section.repeated) entries.push_back({&section, 0, {}, {}});
    }
  }

 private:
  void wrong(int line, std::string key, std::string text) {
    found_.wrong(file_.name, line, std::move(key), std::move(text));
  }

  void top(const std::string& key, const node& value) {
    const auto at = std::find_if(sections_.begin(), sections_.end(),
                                 [&](const section& one) { return one.name == key; });
    if (at == sections_.end()) return unknown_section(key, value);
    const auto& schema = *at;
    auto& entries = file_.sections[schema.name];
    if (schema.repeated) {
      const bool tables = value.kind == node::type::array &&
                          std::all_of(value.items.begin(), value.items.end(), [](const node& n) {
                            return n.kind == node::type::table;
                          });
      if (!tables) {
        return wrong(value.line, key, fmt::format("must be a list of tables: [[{}]]", key));
      }
      for (const auto& item : value.items) entries.push_back(table(schema, item));
    } else if (value.kind != node::type::table) {
      wrong(value.line, key, fmt::format("must be one table: [{}]", key));
    } else {
      entries.push_back(table(schema, value));
    }
  }

  entry table(const section& schema, const node& from) {
    entry to{&schema, from.line, {}, {}};
    for (const auto& [key, value] : from.entries) {
      const auto* setting = schema.find(key);
      const std::string path = fmt::format("{}.{}", schema.name, key);
      if (setting == nullptr) {
        if (schema.open) {
          found_.unacted(file_.name, value.line, path);
        } else {
          unknown_key(schema, key, value);
        }
        continue;
      }
      if (!setting->acted_on) found_.unacted(file_.name, value.line, path);
      if (to.given.count(setting->name) != 0) {
        wrong(value.line, path, fmt::format("is another name of {}, which is given too",
                                            key == setting->name ? setting->alias : setting->name));
        continue;
      }
      if (const auto problem = judge(*setting, value); !problem.empty()) {
        wrong(value.line, path, problem);
        continue;
      }
      to.given.emplace(setting->name, &value);
      if (setting->type == value_type::tables) {
        for (const auto& item : value.items) to.nested.push_back(table(*setting->nested, item));
      }
    }
    for (const auto& setting : schema.settings) {
      const bool given = std::any_of(from.entries.begin(), from.entries.end(), [&](const auto& e) {
        return schema.find(e.key) == &setting;
      });
      if (setting.required && !given) {
        wrong(from.line, fmt::format("{}.{}", schema.name, setting.name),
              fmt::format("is missing; must be {}", type_text(setting)));
      }
    }
    return to;
  }

  // What is wrong with the value; empty: nothing.
  static std::string judge(const setting& of, const node& value) {
    const auto must_be = [&] {
      const auto allowed = allowed_text(of);
      return fmt::format("must be {}{}{}", type_text(of), allowed.empty() ? "" : ": ", allowed);
    };
    using type = node::type;
    const auto all = [&](auto holds) {
      return value.kind == type::array &&
             std::all_of(value.items.begin(), value.items.end(), holds);
    };
    const auto text = [](const node& n) { return n.kind == type::string; };
    const auto scalar = [](const node& n) {
      return n.kind == type::string || (n.kind == type::integer && !n.overflow);
    };
    const auto numeric = [](const node& n) {
      return n.kind == type::integer || n.kind == type::number;
    };
    bool good = true;
    switch (of.type) {
      case value_type::boolean: good = value.kind == type::boolean; break;
      case value_type::integer:
      case value_type::duration:
        good = value.kind == type::integer && !value.overflow && value.integer >= of.min &&
               (value.integer <= of.max || (of.unlimited && value.integer == largest));
        break;
      case value_type::number: {
        const double number =
            value.kind == type::integer ? static_cast<double>(value.integer) : value.number;
        good = numeric(value) && std::isfinite(number) && number >= static_cast<double>(of.min) &&
               number <= static_cast<double>(of.max);
        break;
      }
      case value_type::string: good = text(value) && !(of.filled && value.string.empty()); break;
      case value_type::choice: {
        const auto allowed = choices(of);
        good = text(value) &&
               std::find(allowed.begin(), allowed.end(), value.string) != allowed.end();
        break;
      }
      case value_type::strings: good = all(text); break;
      case value_type::scalars: good = all(scalar); break;
      case value_type::scalar: good = scalar(value); break;
      case value_type::vectors: good = all([&](const node& n) { return vector(n); }); break;
      case value_type::string_map:
        good = value.kind == type::table &&
               std::all_of(value.entries.begin(), value.entries.end(),
                           [&](const auto& e) { return text(e.value); });
        break;
      case value_type::tables:
        good = all([](const node& n) { return n.kind == type::table; });
        break;
    }
    if (good && has_control(value)) return "must not contain control characters";
    return good ? std::string() : must_be();
  }

  static bool vector(const node& from) {  // a bare list, or { values = [...] }
    const node* list = &from;
    if (from.kind == node::type::table && from.entries.size() == 1 &&
        from.entries[0].key == "values") {
      list = &from.entries[0].value;
    }
    return list->kind == node::type::array &&
           std::all_of(list->items.begin(), list->items.end(), [](const node& n) {
             return n.kind == node::type::integer || n.kind == node::type::number;
           });
  }

  // Names and passwords travel as zero-terminated strings and in log lines.
  static bool has_control(const node& value) {
    return std::any_of(value.string.begin(), value.string.end(), [](char c) {
             return static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n' && c != '\r';
           }) ||
           std::any_of(value.items.begin(), value.items.end(),
                       [](const node& n) { return has_control(n); });
  }

  void unknown_section(const std::string& key, const node& value) {
    const bool table = value.kind == node::type::table || value.kind == node::type::array;
    for (const auto& section : sections_) {
      if (!table && section.find(key) != nullptr) {
        return wrong(value.line, key,
                     fmt::format("unknown at the top of the file; it belongs to {}{}{}",
                                 section.repeated ? "[[" : "[", section.name,
                                 section.repeated ? "]]" : "]"));
      }
    }
    std::vector<std::string_view> known;
    for (const auto& section : sections_) known.push_back(section.name);
    const auto near = nearest(key, known);
    const auto hint = near.empty() ? fmt::format("known: {}", fmt::join(known, ", "))
                                   : fmt::format("nearest known: {}", near);
    wrong(value.line, key, fmt::format("unknown section; {}", hint));
  }

  void unknown_key(const section& schema, const std::string& key, const node& value) {
    std::vector<std::string_view> known;
    for (const auto& setting : schema.settings) known.push_back(setting.name);
    std::string hint;
    if (const auto near = nearest(key, known); !near.empty()) {
      hint = fmt::format("; nearest known: {}", near);
    } else {
      for (const auto& section : sections_) {
        if (section.find(key) != nullptr) {
          hint = fmt::format("; it belongs to {}{}{}", section.repeated ? "[[" : "[", section.name,
                             section.repeated ? "]]" : "]");
          break;
        }
      }
    }
    if (hint.empty()) hint = fmt::format("; known: {}", fmt::join(known, ", "));
    wrong(value.line, fmt::format("{}.{}", schema.name, key), "unknown key" + hint);
  }

  checked_file& file_;
  std::span<const section> sections_;
  findings& found_;
};

}  // namespace

void check(checked_file& file, std::span<const section> sections, findings& found) {
  checker(file, sections, found).run();
}

}  // namespace pgsled::config
