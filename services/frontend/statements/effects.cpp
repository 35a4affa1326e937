#include "services/frontend/statements/effects.hpp"

#include <algorithm>

#include "common/session/shadow.hpp"

namespace pgsled::frontend {

namespace {

bool is_control(sql::effect what) {
  using enum sql::effect;
  return what == begin || what == commit || what == rollback || what == savepoint ||
         what == release || what == rollback_to || what == set || what == set_local ||
         what == reset || what == reset_all || what == discard_all;
}

}  // namespace

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
                   one.name == "standard_conforming_strings"));
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
