#include "common/config/toml_tree.hpp"

#include <algorithm>
#include <exception>
#include <limits>
#include <sstream>
#include <toml.hpp>

// toml11 3 and 4 differ in how a text is parsed and where the text of an error is; nothing outside
// this file may know which one is there.

namespace pgsled::config {
namespace {

using value = toml::value;

int line_of(const value& from) {
#if TOML11_VERSION_MAJOR >= 4
  return static_cast<int>(from.location().first_line_number());
#else
  return static_cast<int>(from.location().line());
#endif
}

// toml11 3 reads an integer that does not fit as the largest one, which is PgDog's "never".
bool overflows(const value& from) {
#if TOML11_VERSION_MAJOR >= 4
  static_cast<void>(from);
  return false;  // a syntax error there
#else
  const auto number = from.as_integer(std::nothrow);
  if (number != std::numeric_limits<std::int64_t>::max() &&
      number != std::numeric_limits<std::int64_t>::min()) {
    return false;
  }
  const auto where = from.location();
  if (where.column() == 0 || where.column() > where.line_str().size()) return false;
  std::string token = where.line_str().substr(where.column() - 1, where.region());
  std::erase_if(token, [](char c) { return c == '_' || c == '+'; });
  if (token.starts_with("0x") || token.starts_with("0o") || token.starts_with("0b")) return true;
  return token != std::to_string(number);
#endif
}

node convert(const value& from) {
  node to;
  to.line = line_of(from);
  if (from.is_boolean()) {
    to.kind = node::type::boolean;
    to.boolean = from.as_boolean();
  } else if (from.is_integer()) {
    to.kind = node::type::integer;
    to.integer = from.as_integer();
    to.overflow = overflows(from);
  } else if (from.is_floating()) {
    to.kind = node::type::number;
    to.number = from.as_floating();
  } else if (from.is_string()) {
    to.kind = node::type::string;
    to.string = toml::get<std::string>(from);
  } else if (from.is_array()) {
    to.kind = node::type::array;
    for (const auto& item : from.as_array()) to.items.push_back(convert(item));
    if (!to.items.empty() && to.items.front().kind == node::type::table) {
      to.line = to.items.front().line;
    }
  } else if (from.is_table()) {
    to.kind = node::type::table;
    for (const auto& [key, entry] : from.as_table()) to.entries.push_back({key, convert(entry)});
    std::sort(to.entries.begin(), to.entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.value.line, std::string_view(a.key)) <
             std::pair(b.value.line, std::string_view(b.key));
    });
  } else {
    to.kind = node::type::date;
  }
  return to;
}

// Errors come as a page with a title, an excerpt and arrows; the title is what fits on a line.
std::string first_line(std::string text) {
  if (const auto end = text.find('\n'); end != std::string::npos) text.resize(end);
  for (const std::string_view noise : {"[error] ", "toml::"}) {
    if (text.starts_with(noise)) text.erase(0, noise.size());
  }
  if (const auto colon = text.find(": "); colon != std::string::npos) {
    const auto head = std::string_view(text).substr(0, colon);
    if (head.starts_with("parse_") || head.starts_with("insert_") || head == "detail") {
      text.erase(0, colon + 2);
    }
  }
  return text;
}

// The excerpt's gutter, " 12 | text", names the line where toml11 gives it in no other way.
int line_in_excerpt(const std::string& text) {
  std::istringstream lines(text);
  int found = 0;
  for (std::string line; std::getline(lines, line);) {
    std::size_t at = line.find_first_not_of(' ');
    int number = 0;
    bool digits = false;
    for (; at < line.size() && line[at] >= '0' && line[at] <= '9' && number < 100'000'000; ++at) {
      number = number * 10 + (line[at] - '0');
      digits = true;
    }
    if (digits && line.compare(at, 2, " |") == 0) found = number;
  }
  return found;
}

// Brackets inside strings and comments count too: a file with more than 64 left open is none of
// ours.
int first_line_too_deep(std::string_view text) {
  int line = 1, depth = 0;
  for (const char c : text) {
    if (c == '\n') ++line;
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > max_toml_depth) return line;
  }
  return 0;
}

// Dotted keys nest without brackets, and the parser recurses into those as well.
int first_line_too_dotted(std::string_view text) {
  int line = 1, dots = 0;
  for (const char c : text) {
    if (c == '\n') {
      ++line;
      dots = 0;
    } else if (c == '.' && ++dots > 2000) {
      return line;
    }
  }
  return 0;
}

// TOML is UTF-8, and toml11 3 runs past the end of a text that breaks off inside a character.
// Position of the first byte that is none, or the size. (Table 3-7 of the Unicode standard.)
std::size_t utf8_until(std::string_view text) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
  };
  std::size_t at = 0;
  while (at < text.size()) {
    const unsigned first = byte(at);
    std::size_t length = 1;
    unsigned low = 0x80, high = 0xBF;  // of the second byte
    if (first < 0x80) {
    } else if (first >= 0xC2 && first <= 0xDF) {
      length = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      length = 3;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      length = 4;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return at;
    }
    for (std::size_t i = 1; i < length; ++i) {
      const unsigned next = byte(at + i);
      if (next < (i == 1 ? low : 0x80u) || next > (i == 1 ? high : 0xBFu)) return at;
    }
    at += length;
  }
  return at;
}

int last_line(std::string_view text) {
  return 1 + static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

tl::expected<node, toml_error> parse_toml(std::string_view text, const std::string& file_name) {
  const auto refuse = [](int line, std::string why) {
    return tl::unexpected<toml_error>(toml_error{line, std::move(why)});
  };
  if (text.size() > max_toml_bytes) return refuse(1, "larger than 16 MiB");
  if (const int line = first_line_too_deep(text)) return refuse(line, "nested too deeply");
  if (const int line = first_line_too_dotted(text)) return refuse(line, "nested too deeply");
  if (const auto at = text.find('\0'); at != std::string_view::npos) {
    return refuse(last_line(text.substr(0, at)), "holds a zero byte");
  }
  if (const auto at = utf8_until(text); at != text.size()) {
    return refuse(last_line(text.substr(0, at)), "holds a byte that is not UTF-8");
  }
  try {
    std::istringstream stream{std::string(text)};
    const value root = toml::parse(stream, file_name);
    node tree = convert(root);
    tree.line = 1;
    return tree;
  } catch (const toml::exception& error) {
    int line = line_in_excerpt(error.what());
    if (line == 0) line = 1;
    return refuse(std::min(line, last_line(text)), first_line(error.what()));
  } catch (const std::exception& error) {
    return refuse(1, first_line(error.what()));
  } catch (...) {
    return refuse(1, "the TOML parser failed");
  }
}

}  // namespace pgsled::config
