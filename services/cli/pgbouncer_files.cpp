#include "services/cli/pgbouncer_files.hpp"

#include <algorithm>
#include <optional>

namespace pgsled::cli {
namespace {

constexpr std::string_view blank = " \t\r";

// Takes a text in quotes, which are doubled inside it, from the front. None: it does not end.
std::optional<std::string> take_quoted(std::string_view& from, char quote) {
  std::string to;
  for (std::size_t at = 1; at < from.size(); ++at) {
    if (from[at] != quote) {
      to.push_back(from[at]);
    } else if (at + 1 < from.size() && from[at + 1] == quote) {
      to.push_back(from[at++]);
    } else {
      from.remove_prefix(at + 1);
      return to;
    }
  }
  return std::nullopt;
}

template <typename Each>
void each_line(std::string_view text, Each each) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    each(trimmed(text.substr(0, end)), number);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(blank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

std::string lower(std::string_view text) {
  std::string to(text);
  std::transform(to.begin(), to.end(), to.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return to;
}

std::vector<ini_line> read_ini(std::string_view all, const complaint& bad) {
  std::vector<ini_line> found;
  std::string section;
  each_line(all, [&](std::string_view text, std::size_t number) {
    if (text.empty() || text.front() == ';' || text.front() == '#') return;
    if (text.front() == '[') {
      const auto end = text.find(']');
      if (end == std::string_view::npos) return bad(number, "a section's name has no end");
      section = lower(trimmed(text.substr(1, end - 1)));
      return;
    }
    constexpr std::string_view include = "%include";
    if (text.starts_with(include)) {
      found.push_back({"", std::string(include),
                       std::string(trimmed(text.substr(include.size()))), number});
      return;
    }
    ini_line one{section, {}, {}, number};
    if (text.front() == '"') {
      const auto name = take_quoted(text, '"');
      if (!name) return bad(number, "a name in quotes has no end");
      one.key = *name;
      text = trimmed(text);
      if (!text.starts_with('=')) return bad(number, "= is missing");
      one.value = trimmed(text.substr(1));
    } else {
      const auto equal = text.find('=');
      if (equal == std::string_view::npos) return bad(number, "= is missing");
      one.key = trimmed(text.substr(0, equal));
      one.value = trimmed(text.substr(equal + 1));
    }
    if (section == "pgbouncer") one.key = lower(one.key);
    found.push_back(std::move(one));
  });
  return found;
}

std::vector<listed_user> read_userlist(std::string_view all, const complaint& bad) {
  std::vector<listed_user> found;
  each_line(all, [&](std::string_view text, std::size_t number) {
    if (text.empty() || text.front() != '"') return;   // PgBouncer skips such lines, too
    const auto name = take_quoted(text, '"');
    text = trimmed(text);
    const auto secret = name && text.starts_with('"') ? take_quoted(text, '"') : std::nullopt;
    if (!secret) return bad(number, "not \"name\" \"password\"");
    found.push_back({*name, *secret, number});
  });
  return found;
}

std::map<std::string, std::string> read_pairs(std::string_view text,
                                              const std::function<void(std::string_view)>& bad) {
  std::map<std::string, std::string> found;
  for (text = trimmed(text); !text.empty(); text = trimmed(text)) {
    const auto equal = text.find('=');
    if (equal == std::string_view::npos) {
      bad("key=value is expected");
      return found;
    }
    const auto key = lower(trimmed(text.substr(0, equal)));
    text = trimmed(text.substr(equal + 1));
    if (text.starts_with('\'')) {
      auto value = take_quoted(text, '\'');
      if (!value) {
        bad("a value in quotes has no end");
        return found;
      }
      found[key] = std::move(*value);
    } else {
      const auto end = std::min(text.find_first_of(blank), text.size());
      found[key] = text.substr(0, end);
      text.remove_prefix(end);
    }
  }
  return found;
}

}  // namespace pgsled::cli
