#include <fmt/format.h>

#include "common/config/config.hpp"
#include "common/config/schema.hpp"

// docs/configuration.md and the two examples, from the declaration.

namespace pgsled::config {
namespace {

std::string title(const section& of) {
  return of.repeated ? fmt::format("[[{}]]", of.name) : fmt::format("[{}]", of.name);
}

std::string quoted(const setting& of, std::string_view value) {
  const bool text = of.type == value_type::string || of.type == value_type::choice;
  return text ? fmt::format("\"{}\"", value) : std::string(value);
}

std::string escaped(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) {
    text.insert(at, "\\");
  }
  return text;
}

std::string short_type(const setting& of) {
  switch (of.type) {
    case value_type::boolean: return "boolean";
    case value_type::integer: return "integer";
    case value_type::duration: return "milliseconds";
    case value_type::number: return "number";
    case value_type::string:
    case value_type::choice: return "string";
    case value_type::strings: return "list of strings";
    case value_type::scalars: return "list of integers or strings";
    case value_type::scalar: return "integer or string";
    case value_type::vectors: return "list of lists of numbers";
    case value_type::string_map: return "table of strings";
    case value_type::tables: return "list of tables";
  }
  return {};
}

std::string fallback_text(const setting& of) {
  if (of.required) return "required";
  if (of.fallback.empty()) return "–";
  if (of.fallback == "never") return "never";
  return fmt::format("`{}`", quoted(of, of.fallback));
}

std::string help_text(const setting& of) {
  return std::string(of.help) + (of.zero_unlimited ? " 0: no limit." : "");
}

void describe(const section& of, std::string& to) {
  to += fmt::format("\n## {}\n\n{}", title(of), of.help);
  if (!of.acted_on) to += " Checked, not acted on yet.";
  if (of.open) to += " Its keys are not published: others than these are accepted too.";
  to += "\n\n| key | type | default | allowed | in use | meaning |\n|---|---|---|---|---|---|\n";
  for (const auto& one : of.settings) {
    const auto alias = one.alias.empty() ? "" : fmt::format(" (also `{}`)", one.alias);
    to += fmt::format("| `{}`{} | {} | {} | {} | {} | {} |\n", one.name, alias, short_type(one),
                      fallback_text(one), escaped(allowed_text(one)), one.acted_on ? "yes" : "no",
                      escaped(help_text(one)));
  }
  for (const auto& one : of.settings) {
    if (one.nested != nullptr) describe(*one.nested, to);
  }
}

void add_comment(std::string_view text, std::string& to) {
  std::string line = "#";
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    const auto word = text.substr(at, end - at);
    if (line.size() + 1 + word.size() > 98) {
      to += line + "\n";
      line = "#";
    }
    line += ' ';
    line += word;
    at = end + 1;
  }
  to += line + "\n";
}

// What stands behind the `=` of a key that is commented out.
std::string sample(const setting& of) {
  if (of.fallback == "never") return std::to_string(largest);
  if (!of.fallback.empty()) return quoted(of, of.fallback);
  if (of.max == 65535) return "9090";  // a port
  switch (of.type) {
    case value_type::boolean: return "false";
    case value_type::integer:
    case value_type::duration: return std::to_string(std::max<std::int64_t>(of.min, 1));
    case value_type::number: return "1.0";
    case value_type::string: return "\"\"";
    case value_type::choice: return fmt::format("\"{}\"", choices(of).front());
    case value_type::strings: return "[]";
    case value_type::scalars: return "[1, 2, 3]";
    case value_type::scalar: return "1";
    case value_type::vectors: return "[[1.0, 0.5]]";
    case value_type::string_map: return "{}";
    case value_type::tables: return "[]";
  }
  return {};
}

// The table with every key as a comment, except those in `live`, written as given there.
void example(const section& of, const std::vector<std::pair<std::string_view, std::string>>& live,
             std::string& to) {
  to += "\n";
  const bool quiet = live.empty() && of.repeated;  // the whole table is a comment
  add_comment(fmt::format("{}{}", of.help, of.acted_on ? "" : " Not acted on yet."), to);
  to += fmt::format("{}{}\n", quiet ? "# " : "", title(of));
  for (const auto& one : of.settings) {
    const auto allowed = one.type == value_type::choice ? allowed_text(one) : std::string();
    add_comment(fmt::format("{}{}{}{}", one.help, allowed.empty() ? "" : " One of: ", allowed,
                            one.acted_on ? "" : " (Not acted on yet.)"),
                to);
    std::string line = fmt::format("# {} = {}\n", one.name, sample(one));
    for (const auto& [key, value] : live) {
      if (key == one.name) line = fmt::format("{} = {}\n", key, value);
    }
    to += line;
  }
}

}  // namespace

std::string markdown_reference() {
  std::string to =
      "# Configuration\n\n"
      "Generated by `pgsled docs configuration`; change the declaration in `common/config`, not "
      "this page.\n\n"
      "The router reads `pgdog.toml` and `users.toml` as PgDog 0.1.54 has them, and the "
      "sections `[pgsled]` and `[resharding]`. Only the router reads them; every other process "
      "is told by it what it needs.\n\n"
      "* A key that is not declared here, a value of the wrong type or out of range, and what does "
      "not fit together is a mistake. All mistakes of both files are reported together, with file, "
      "line, key and what is allowed, and nothing starts (exit status 2). `pgsled check-config` "
      "does the check alone.\n"
      "* A key with *in use: no* is checked like the others and has no effect yet. Giving one is "
      "allowed: it is named in a warning at start and in `SHOW CONFIG`.\n"
      "* Times are milliseconds. `9223372036854775807`, and anything above a hundred years, means "
      "never.\n"
      "* What is set for a user goes before what is set for the database, and that before "
      "`[general]`.\n"
      "* `RELOAD` and SIGHUP apply what changed, except what says that it is read at start only.\n"
      "\n# pgdog.toml\n";
  for (const auto& one : pgdog_sections()) describe(one, to);
  to += "\n# users.toml\n";
  for (const auto& one : users_sections()) describe(one, to);
  return to;
}

std::string example_pgdog_toml() {
  std::string to =
      "# pgdog.toml: every key with its default, generated by `pgsled docs example-pgdog`.\n"
      "# What is not commented out serves one database on this machine.\n"
      "# The same file works with PgDog as long as [pgsled] and [resharding] are not in it.\n";
  for (const auto& one : pgdog_sections()) {
    if (one.name == "databases") {
      example(one, {{"name", "\"app\""}, {"host", "\"127.0.0.1\""}, {"port", "5432"}}, to);
    } else if (one.repeated || one.acted_on) {
      example(one, {}, to);
    }
  }
  to += "\n# Sections that are checked and not acted on yet are listed in docs/configuration.md.\n";
  return to;
}

std::string example_users_toml() {
  std::string to =
      "# users.toml: every key with its default, generated by `pgsled docs example-users`.\n"
      "# Keep this file readable for the service's user only.\n";
  example(section_of(users_sections(), "users"),
          {{"name", "\"app\""}, {"database", "\"app\""}, {"password", "\"change-me\""}}, to);
  auto admin = section_of(users_sections(), "admin");
  admin.repeated = true;  // commented out as a whole: without a password it would lock out
  std::string text;
  example(admin, {}, text);
  if (const auto at = text.find("# [[admin]]"); at != std::string::npos) {
    text.replace(at, 11, "# [admin]");
  }
  return to + text;
}

}  // namespace pgsled::config
