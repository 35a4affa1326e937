#pragma once
// The text form of SCRAM messages: attributes "a=value" parted by commas. Internal to this library.

#include <optional>
#include <string_view>

namespace pgsled::auth {

inline constexpr std::string_view mechanism_plain = "SCRAM-SHA-256",
                                  mechanism_plus = "SCRAM-SHA-256-PLUS",
                                  binding_type = "tls-server-end-point";

// Takes "<name>=<value>" and the comma that parts it from the next one from the front of `rest`.
// Nothing when the front is something else; `rest` is then as it was. A comma with nothing behind
// it parts nothing and stays, for the caller to refuse.
inline std::optional<std::string_view> take_attribute(std::string_view& rest, char name) {
  if (rest.size() < 2 || rest[0] != name || rest[1] != '=') return std::nullopt;
  const auto end = rest.find(',');
  const auto value = rest.substr(2, end == std::string_view::npos ? end : end - 2);
  if (end == std::string_view::npos) rest = {};
  else rest.remove_prefix(end + 1 == rest.size() ? end : end + 1);
  return value;
}

// What may be in a nonce (RFC 5802, "printable"): visible ASCII without the comma.
inline bool printable(std::string_view nonce) {
  for (const char character : nonce)
    if (character < 0x21 || character > 0x7e || character == ',') return false;
  return !nonce.empty();
}

}  // namespace pgsled::auth
