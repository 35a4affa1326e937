#include "common/sql/setting_calls.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <optional>

#include "common/sql/lexer.hpp"

namespace pgsled::sql {
namespace {

using namespace literals;

// The names of a path as its own syntax has them, each in quotes, as SET takes them; of an empty
// path, as each dump begins with, one that no schema has. Nothing: what is not plainly such a list.
std::optional<std::string> path_as_list(std::string_view text) {
  std::string list;
  const auto skip = [&] { text.remove_prefix(std::min(text.find_first_not_of(' '), text.size())); };
  skip();
  if (text.empty()) return "''";
  while (true) {
    skip();
    std::string name;
    if (text.starts_with('"')) {
      const auto end = text.find('"', 1);
      if (end == text.npos || end == 1 || text.substr(end + 1).starts_with('"')) return {};
      name = text.substr(1, end - 1);
      text.remove_prefix(end + 1);
    } else {
      while (!text.empty() && detail::class_of(text.front()) & detail::id_more) {
        name += fold(text.front());
        text.remove_prefix(1);
      }
    }
    const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return c > 0; });
    if (name.empty() || !ascii || name.find_first_of("'\\") != name.npos) return {};
    list += (list.empty() ? "\"" : ", \"") + name + '"';
    skip();
    if (text.empty()) return list;
    if (!text.starts_with(',')) return {};
    text.remove_prefix(1);
  }
}

struct call_reader {
  std::string_view sql;
  lexer from;
  std::uint32_t end;
  token t{};
  std::array<char, 64> buffer{};

  void step() {
    t = from.next();
    if (t.begin >= end) t = token{};
  }
  bool take(bool is_it) {
    if (is_it) step();
    return is_it;
  }
  std::string_view name() { return folded(sql, t, buffer); }

  bool read(std::vector<setting_call>& to) {
    step();
    if (!take(t.is("select"_w))) return false;
    do {
      if (!one(to.emplace_back())) return false;
      take(t.is("as"_w));
      take(t.kind == token_kind::word || t.kind == token_kind::quoted);
    } while (take(t.is_symbol(',')));
    return t.kind == token_kind::end;
  }

  bool one(setting_call& to) {
    if (name() == "pg_catalog") {
      step();
      if (!take(t.is_symbol('.'))) return false;
    }
    return take(name() == "set_config") && take(t.is_symbol('(')) && is_text(to.name) &&
           take(t.is_symbol(',')) && is_text(to.value) && take(t.is_symbol(',')) &&
           is_truth(to.is_local) && take(t.is_symbol(')'));
  }

  bool is_text(setting_call::argument& to) {
    if (t.kind == token_kind::text) {
      to.text = sql.substr(t.begin + 1, t.size() - 2);
      step();
    } else if (!is_parameter(to)) {
      return false;
    }
    return is_cast_to("text", "varchar");
  }
  bool is_truth(setting_call::argument& to) {
    if (t.is("true"_w) || t.is("false"_w)) {
      to.text = t.is("true"_w) ? "true" : "false";
      step();
    } else if (!is_parameter(to)) {
      return false;
    }
    return is_cast_to("bool", "boolean");
  }
  bool is_parameter(setting_call::argument& to) {
    if (t.kind != token_kind::parameter) return false;
    const auto* first = sql.data() + t.begin + 1;
    const auto error = std::from_chars(first, sql.data() + t.end, to.parameter).ec;
    return take(error == std::errc() && to.parameter > 0);
  }
  // Or to nothing.
  bool is_cast_to(std::string_view type, std::string_view other_name) {
    while (t.kind == token_kind::symbol && t.code == "::"_w) {
      step();
      if (!take(name() == type || name() == other_name)) return false;
    }
    return true;
  }
};

bool sets(const known_setting& from, statement& to) {
  std::string variable = from.name;
  std::transform(variable.begin(), variable.end(), variable.begin(), fold);
  if (variable.empty() ||
      variable.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.") != variable.npos ||
      says_pg_temp(from.value)) {
    return false;
  }
  to.value = from.literal;
  // SET quotes the elements of these lists, set_config() does not; and '' resets nothing there.
  if (variable == "search_path") {
    auto list = path_as_list(from.value);
    if (!list) return false;
    to.value = std::move(*list);
  } else if (variable == "temp_tablespaces" || variable.ends_with("_preload_libraries")) {
    return false;
  }
  to.effect = from.is_local || is_transaction_mode(variable) ? effect::set_local : effect::set;
  to.name = std::move(variable);
  return true;
}

}  // namespace

std::vector<setting_call> read_setting_calls(std::string_view sql, bool standard_strings,
                                             std::uint32_t from, std::uint32_t end) {
  std::vector<setting_call> calls;
  call_reader in{sql, {sql, standard_strings, false, from}, end};
  if (!in.read(calls)) calls.clear();
  return calls;
}

std::size_t count_local_calls(std::string_view sql, bool standard_strings, std::uint32_t from,
                              std::uint32_t end) {
  lexer arguments{sql, standard_strings, false, from};
  struct open_call {
    int depth;
    int commas = 0;
  };
  std::vector<open_call> calls;
  std::array<char, 64> buffer;
  std::size_t local = 0;
  int depth = 0;
  token last, before;
  for (token t = arguments.next(); t.kind != token_kind::end && t.begin < end;
       t = arguments.next()) {
    if (t.is_symbol('(') || t.is_symbol('[')) {
      ++depth;
      const bool named = last.kind == token_kind::word || last.kind == token_kind::quoted;
      if (named && folded(sql, last, buffer) == "set_config") calls.push_back({depth});
    } else if (t.is_symbol(')') || t.is_symbol(']')) {
      if (!calls.empty() && calls.back().depth == depth) {
        if (calls.back().commas != 2 || !last.is("true"_w) || !before.is_symbol(',')) return 0;
        calls.pop_back();
        ++local;
      }
      --depth;
    } else if (t.is_symbol(',') && !calls.empty() && calls.back().depth == depth) {
      ++calls.back().commas;
    }
    before = last;
    last = t;
  }
  return calls.empty() ? local : 0;
}

bool sets(const std::vector<known_setting>& all, statement& to) {
  std::vector<statement> made(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!sets(all[i], made[i])) return false;
  }
  to.effect = made.front().effect;
  to.name = std::move(made.front().name);
  to.value = std::move(made.front().value);
  to.unknown_path = false;
  to.calls = nullptr;
  to.also.assign(std::make_move_iterator(made.begin() + 1), std::make_move_iterator(made.end()));
  return true;
}

bool is_transaction_mode(std::string_view name) {
  return name == "transaction_isolation" || name == "transaction_read_only" ||
         name == "transaction_deferrable";
}

bool decides_names(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), fold);
  return name == "search_path" || name == "role" || name == "session_authorization" ||
         name == "standard_conforming_strings";
}

bool says_pg_temp(std::string path) {
  std::transform(path.begin(), path.end(), path.begin(), fold);
  return path.find("pg_temp") != path.npos;
}

}  // namespace pgsled::sql
