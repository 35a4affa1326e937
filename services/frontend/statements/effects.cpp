#include "services/frontend/statements/effects.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/session/shadow.hpp"
#include "common/sql/lexer.hpp"
#include "common/sql/setting_calls.hpp"
#include "common/wire/messages.hpp"

namespace pgsled::frontend {

namespace {

bool is_control(sql::effect what) {
  using enum sql::effect;
  return what == begin || what == commit || what == rollback || what == savepoint ||
         what == release || what == rollback_to || what == set || what == set_local ||
         what == reset || what == reset_all || what == discard_all;
}

// As PostgreSQL's text of the value, where that is certain.
std::optional<std::string> text_of(const wire::bind_message& sent, std::string_view types,
                                   std::uint16_t number) {
  const auto given = wire::bind_parameter(sent, static_cast<std::uint16_t>(number - 1));
  if (!given.present) return {};
  const std::size_t at = 4 * (std::size_t{number} - 1);
  const auto type = at + 4 <= types.size() ? load_be<std::uint32_t>(types.data() + at) : 0;
  constexpr std::uint32_t unknown = 0, int8 = 20, int2 = 21, int4 = 23, text = 25, varchar = 1043;
  const auto bytes = as_text(given.value);
  if (type == unknown || type == text || type == varchar) return std::string(bytes);
  if (type != int2 && type != int4 && type != int8) return {};
  std::int64_t value = 0;
  if (given.binary) {
    if (bytes.size() == 2) value = load_be<std::int16_t>(bytes.data());
    else if (bytes.size() == 4) value = load_be<std::int32_t>(bytes.data());
    else if (bytes.size() == 8) value = load_be<std::int64_t>(bytes.data());
    else return {};
    return std::to_string(value);
  }
  const auto [end, error] = std::from_chars(bytes.data(), bytes.data() + bytes.size(), value);
  if (error != std::errc() || end != bytes.data() + bytes.size()) return {};
  return std::to_string(value);
}

std::optional<bool> truth_of(const wire::bind_message& sent, std::uint16_t number) {
  const auto given = wire::bind_parameter(sent, static_cast<std::uint16_t>(number - 1));
  if (!given.present) return {};
  const auto bytes = as_text(given.value);
  using namespace std::string_view_literals;
  for (const auto yes : {"\1"sv, "t"sv, "true"sv, "1"sv}) {
    if (bytes == yes) return true;
  }
  for (const auto no : {"\0"sv, "f"sv, "false"sv, "0"sv}) {
    if (bytes == no) return false;
  }
  return {};
}

// False: not all of it can be said.
bool settle(const std::vector<sql::setting_call>& calls, const wire::bind_message& sent,
            std::string_view types, sql::statement& to) {
  const auto text = [&](const sql::setting_call::argument& one) {
    return one.parameter == 0 ? one.text : text_of(sent, types, one.parameter);
  };
  std::vector<sql::known_setting> known;
  for (const auto& one : calls) {
    const auto name = text(one.name), value = text(one.value);
    const auto local = one.is_local.parameter == 0 ? one.is_local.text == "true"
                                                   : truth_of(sent, one.is_local.parameter);
    if (!name || !value || !local) return false;
    // Of a literal its quotes are doubled already.
    auto literal = one.value.parameter == 0 ? '\'' + *value + '\'' : session::quote_literal(*value);
    known.push_back({*name, *value, std::move(literal), *local});
  }
  return sql::sets(known, to);
}

}  // namespace

session::effects effects_of(const statement& parsed, byte_span bind_body) {
  const auto& effects = parsed.effects;
  if (!effects || effects->size() != 1 || !effects->front().calls) return effects;
  const auto sent = wire::read_bind(bind_body);
  auto known = std::make_shared<std::vector<sql::statement>>(*effects);
  const auto& calls = *effects->front().calls;
  return sent && settle(calls, *sent, parsed.types, known->front()) ? known : effects;
}

const sql::statement* only_effect(const session::effects& effects) {
  return effects && effects->size() == 1 ? &effects->front() : nullptr;
}

bool any_effect(const session::effects& effects, sql::effect wanted) {
  return effects && std::any_of(effects->begin(), effects->end(),
                                [&](const auto& one) { return one.effect == wanted; });
}

bool forgets_statements(const session::effects& effects) {
  return any_effect(effects, sql::effect::deallocate) ||
         any_effect(effects, sql::effect::discard_all);
}

bool has_modes(std::string_view begin) {
  while (!begin.empty() && (begin.back() == ';' || begin.back() == ' ')) begin.remove_suffix(1);
  for (const std::string_view plain :
       {"begin", "begin work", "begin transaction", "start transaction"}) {
    if (begin.size() == plain.size() && starts_with_word(begin, plain)) return false;
  }
  return true;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of("; \t\n\r\f\v") == text.npos;
}

bool has_no_rows(const session::effects& effects) {
  using enum sql::effect;
  const auto* only = only_effect(effects);
  return only != nullptr &&
         (only->effect == begin || only->effect == commit || only->effect == rollback ||
          only->effect == savepoint || only->effect == release || only->effect == rollback_to);
}

bool leaves_failure(const session::effects& effects) {
  const auto* only = only_effect(effects);
  return only != nullptr && session::leaves_failure(*only);
}

bool surely_chains(std::string_view text) {
  constexpr std::string_view end = " and chain";
  while (!text.empty() && (text.back() == ';' || text.back() == ' ')) text.remove_suffix(1);
  return text.size() > end.size() && starts_with_word(text.substr(text.size() - end.size()), end) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return c == ' ' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
         });
}

bool chains(std::string_view text) {
  constexpr std::string_view chain = "chain";
  for (std::string_view before = text; text.size() >= chain.size(); text.remove_prefix(1)) {
    if (!starts_with_word(text, chain)) continue;
    before.remove_suffix(text.size());
    return before.size() < 3 || !starts_with_word(before.substr(before.size() - 3), "no ");
  }
  return false;
}

bool starts_with_word(std::string_view text, std::string_view lower_words) {
  if (text.size() < lower_words.size()) return false;
  for (std::size_t i = 0; i < lower_words.size(); ++i) {
    if ((text[i] | 0x20) != lower_words[i] && text[i] != lower_words[i]) return false;
  }
  return true;
}

cursor_use cursor_of(std::string_view sql) {
  // Before the lexer: most statements begin with another letter, and no comment.
  const char first = sql.empty() ? '\0' : sql::fold(sql.front());
  if (first >= 'a' && first <= 'z' && std::string_view("cdfm").find(first) == std::string::npos) {
    return {};
  }
  using enum cursor_use::kind;
  sql::lexer tokens{sql, true};
  auto t = tokens.next();
  if (t.kind != sql::token_kind::word) return {};
  const auto verb = sql::identifier(sql, t);
  const auto what = verb == "declare"                    ? declares
                    : verb == "fetch" || verb == "move"  ? reads
                    : verb == "close"                    ? closes
                                                         : none;
  if (what == none) return {};
  // It names the cursor last; but of DECLARE, where more follows, at once.
  sql::token last;
  for (t = tokens.next(); t.kind != sql::token_kind::end && !t.is_symbol(';'); t = tokens.next()) {
    last = t;
    if (what == declares) break;
  }
  if (last.kind != sql::token_kind::word && last.kind != sql::token_kind::quoted) return {};
  return {what, sql::identifier(sql, last)};
}

std::size_t count_controls(const session::effects& effects) {
  if (!effects) return 0;
  return static_cast<std::size_t>(std::count_if(
      effects->begin(), effects->end(), [](const auto& one) { return is_control(one.effect); }));
}

bool changes_meaning(const sql::statement& one) {
  using enum sql::effect;
  const bool sets = one.effect == set || one.effect == set_local || one.effect == reset;
  return one.effect == reset_all || one.effect == discard_all || one.unknown_path ||
         (sets && (one.name == "search_path" || session::is_identity(one.name) ||
                   one.name == "standard_conforming_strings")) ||
         std::any_of(one.also.begin(), one.also.end(), changes_meaning);
}

bool changes_texts(const sql::statement& one) {
  using enum sql::effect;
  const bool sets = one.effect == set || one.effect == reset;
  return one.effect == reset_all || one.effect == discard_all ||
         (sets && session::decides_parsing(one.name)) ||
         std::any_of(one.also.begin(), one.also.end(), changes_texts);
}

bool changes_names(const session::effects& effects) {
  if (!effects) return false;
  bool changed = false;
  for (const auto& one : *effects) {
    if (changed && one.effect == sql::effect::none) return true;
    changed = changed || changes_meaning(one);
  }
  return false;
}

}  // namespace pgsled::frontend
