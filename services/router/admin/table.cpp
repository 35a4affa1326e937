#include "services/router/admin/table.hpp"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <charconv>

namespace pgsled::router {

namespace json = boost::json;

std::string to_json(const admin_table& from) {
  json::object to;
  if (from.has_result) {
    json::array columns;
    for (const auto& [name, type] : from.columns) {
      columns.push_back({{"name", name}, {"type", static_cast<std::uint32_t>(type)}});
    }
    json::array rows;
    rows.reserve(from.rows.size());
    for (const auto& row : from.rows) {
      json::array values;
      values.reserve(row.size());
      for (const auto& value : row) values.push_back(value ? json::value(*value) : json::value());
      rows.push_back(std::move(values));
    }
    to["columns"] = std::move(columns);
    to["rows"] = std::move(rows);
  }
  to["tag"] = from.tag;
  if (!from.notice.empty()) to["notice"] = from.notice;
  return json::serialize(to);
}

result<admin_table> only_columns(admin_table from, const std::vector<std::string>& names) {
  if (names.empty()) return from;
  std::vector<std::size_t> kept;
  admin_table to;
  for (const std::string& name : names) {
    const auto found = std::find_if(from.columns.begin(), from.columns.end(),
                                    [&](const auto& column) { return column.first == name; });
    if (found == from.columns.end()) {
      return failure("42703", "there is no column \"" + name + "\" in this view");
    }
    kept.push_back(static_cast<std::size_t>(found - from.columns.begin()));
    to.columns.push_back(*found);
  }
  for (const auto& row : from.rows) {
    auto& values = to.rows.emplace_back();
    for (const std::size_t index : kept) values.push_back(row[index]);
  }
  to.tag = std::move(from.tag);
  to.notice = std::move(from.notice);
  return to;
}

std::string gathered_row::text(std::string_view key) const {
  const auto found = values.find(key);
  return found == values.end() ? std::string() : found->second;
}

std::uint64_t gathered_row::number(std::string_view key) const {
  const auto found = values.find(key);
  if (found == values.end()) return 0;
  const std::string& from = found->second;
  std::uint64_t value = 0;
  std::from_chars(from.data(), from.data() + from.size(), value);
  return value;
}

namespace {

std::string as_text(const json::value& from) {
  if (from.is_string()) return std::string(from.get_string());
  if (from.is_bool()) return from.get_bool() ? "t" : "f";
  if (from.is_double()) return std::to_string(from.get_double());
  return from.is_null() ? std::string() : json::serialize(from);
}

const json::object* object_of(const json::value& from) {
  return from.is_object() ? &from.get_object() : nullptr;
}

bool add_rows(const std::string& instance, const std::string& text,
              std::vector<gathered_row>& rows) {
  json::error_code ec;
  const json::value parsed = json::parse(text, ec);
  if (ec || object_of(parsed) == nullptr) return false;
  const json::value* list = parsed.get_object().if_contains("rows");
  if (list == nullptr) return true;
  if (!list->is_array()) return false;
  for (const json::value& element : list->get_array()) {
    const json::object* from = object_of(element);
    if (from == nullptr) return false;
    if (rows.size() >= max_gathered_rows) return true;
    gathered_row& row = rows.emplace_back();
    row.instance = instance;
    for (const auto& [key, value] : *from) {
      row.values.emplace(std::string(key.data(), key.size()), as_text(value));
    }
  }
  return true;
}

}  // namespace

std::vector<gathered_row> read_rows(gathered& from) {
  std::vector<gathered_row> rows;
  for (const auto& [instance, text] : from.answers) {
    if (!add_rows(instance, text, rows)) from.missing.push_back(instance);
  }
  return rows;
}

std::string json_text(const std::string& text) { return json::serialize(json::value(text)); }

std::string read_text(const std::string& text) {
  json::error_code ec;
  const json::value parsed = json::parse(text, ec);
  if (ec || object_of(parsed) == nullptr) return {};
  const json::value* value = parsed.get_object().if_contains("text");
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

}  // namespace pgsled::router
