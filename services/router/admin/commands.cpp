#include "services/router/admin/commands.hpp"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

namespace pgsled::router {

namespace {

boost::json::object read_object(std::string_view text) {
  boost::json::error_code ec;
  boost::json::value value =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), ec);
  return !ec && value.is_object() ? std::move(value.get_object()) : boost::json::object();
}

std::string text_of(const boost::json::object& from, std::string_view key) {
  const auto* value = from.if_contains(boost::json::string_view(key.data(), key.size()));
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

}  // namespace

command read_command(std::string_view json) {
  const auto object = read_object(json);
  return {text_of(object, "command"), text_of(object, "database")};
}

admin_question read_admin_question(std::string_view json) {
  const auto object = read_object(json);
  return {text_of(object, "user"), text_of(object, "sql")};
}

}  // namespace pgsled::router
