#include "common/bus/error_payload.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace pgsled::bus {
namespace {

// JSON text must be UTF-8, which a server's own message need not be.
std::string ascii_if_broken(const std::string& text) {
  boost::json::error_code ec;
  boost::json::parse(boost::json::serialize(boost::json::string(text)), ec);
  if (!ec) return text;
  std::string out = text;
  for (char& c : out)
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  return out;
}

std::string text_of(const boost::json::object& from, const char* key) {
  const auto* value = from.if_contains(key);
  if (value == nullptr || !value->is_string()) return {};
  return std::string(std::string_view(value->get_string()));
}

}  // namespace

std::string error_json(const pg_error& from) {
  boost::json::object out;
  out["sqlstate"] = from.sqlstate;
  out["message"] = ascii_if_broken(from.message);
  if (!from.hint.empty()) out["hint"] = ascii_if_broken(from.hint);
  if (!from.detail.empty()) out["detail"] = ascii_if_broken(from.detail);
  return boost::json::serialize(out);
}

pg_error error_from_json(byte_span bytes) {
  boost::json::error_code ec;
  const auto parsed = boost::json::parse(as_text(bytes), ec);
  pg_error out;
  if (ec || !parsed.is_object()) {
    out.message = "an error arrived that could not be read";
    return out;
  }
  const auto& object = parsed.get_object();
  if (auto state = text_of(object, "sqlstate"); state.size() == 5) out.sqlstate = std::move(state);
  out.message = text_of(object, "message");
  out.hint = text_of(object, "hint");
  out.detail = text_of(object, "detail");
  return out;
}

pg_error unknown_kind(kind value) {
  return {"0A000",
          fmt::format("requests of kind {} are not known to version {}",
                      static_cast<unsigned>(value), PGSLED_VERSION),
          "Restart all processes with the same version.",
          {}};
}

}  // namespace pgsled::bus
