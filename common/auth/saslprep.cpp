#include "common/auth/saslprep.hpp"

#include <stringprep.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

namespace pgsled::auth {

namespace {

struct freed {
  void operator()(void* what) const { std::free(what); }
};
template <class T>
using owned = std::unique_ptr<T, freed>;

bool in_table(std::uint32_t code, const Stringprep_table_element* table) {
  for (auto* at = table; at->start != 0 || at->end != 0; ++at) {
    if (code >= at->start && code <= std::max(at->start, at->end)) return true;
  }
  return false;
}

bool in_any(std::uint32_t code, std::span<const Stringprep_table_element* const> tables) {
  return std::any_of(tables.begin(), tables.end(),
                     [&](const auto* table) { return in_table(code, table); });
}

bool is_prohibited(std::uint32_t code) {
  static const Stringprep_table_element* const tables[] = {
      stringprep_rfc3454_C_1_2, stringprep_rfc3454_C_2_1, stringprep_rfc3454_C_2_2,
      stringprep_rfc3454_C_3,   stringprep_rfc3454_C_4,   stringprep_rfc3454_C_5,
      stringprep_rfc3454_C_6,   stringprep_rfc3454_C_7,   stringprep_rfc3454_C_8,
      stringprep_rfc3454_C_9,   stringprep_rfc3454_A_1};   // the last: unassigned
  return in_any(code, tables);
}

// RFC 3454, section 6.
bool mixes_directions(std::u32string_view text) {
  const auto right_to_left = [](char32_t c) { return in_table(c, stringprep_rfc3454_D_1); };
  const auto left_to_right = [](char32_t c) { return in_table(c, stringprep_rfc3454_D_2); };
  if (std::none_of(text.begin(), text.end(), right_to_left)) return false;
  return std::any_of(text.begin(), text.end(), left_to_right) || !right_to_left(text.front()) ||
         !right_to_left(text.back());
}

// Empty: there is none. PostgreSQL looks for what is prohibited before it normalises, where the
// RFC (and libidn's own stringprep()) does so afterwards.
std::string prepared(std::string_view password) {
  std::size_t count = 0;
  const owned<std::uint32_t> codes(stringprep_utf8_to_ucs4(
      password.data(), static_cast<ssize_t>(password.size()), &count));
  if (!codes) return {};
  std::u32string mapped;
  for (const auto code : std::span(codes.get(), count)) {
    if (in_table(code, stringprep_rfc3454_C_1_2)) {
      mapped.push_back(U' ');
    } else if (!in_table(code, stringprep_rfc3454_B_1)) {
      mapped.push_back(static_cast<char32_t>(code));
    }
  }
  if (mapped.empty() || std::any_of(mapped.begin(), mapped.end(), is_prohibited) ||
      mixes_directions(mapped)) {
    return {};
  }
  const std::vector<std::uint32_t> plain(mapped.begin(), mapped.end());
  const owned<std::uint32_t> normal(
      stringprep_ucs4_nfkc_normalize(plain.data(), static_cast<ssize_t>(plain.size())));
  if (!normal) return {};
  const owned<char> text(stringprep_ucs4_to_utf8(normal.get(), -1, nullptr, nullptr));
  return text ? std::string(text.get()) : std::string();
}

}  // namespace

std::string saslprep(std::string_view password) {
  const bool ascii = std::all_of(password.begin(), password.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  auto made = ascii ? std::string() : prepared(password);
  return made.empty() ? std::string(password) : made;
}

}  // namespace pgsled::auth
