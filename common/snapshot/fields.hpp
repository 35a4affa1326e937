#pragma once
// Described structs to and from Boost.JSON. Only for .cpp files of this library: Boost.JSON takes
// seconds to compile. Pure. decode() keeps what is missing, skips what is unknown, and fails on a
// value of the wrong kind or range with the path to it.

#include <boost/describe/class.hpp>
#include <boost/describe/members.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/mp11/algorithm.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/snapshot/snapshot.hpp"

// What other structs hold, of another namespace.
namespace pgsled::placement {

BOOST_DESCRIBE_STRUCT(mapping_range, (), (start, end, has_start, has_end, shard))
BOOST_DESCRIBE_STRUCT(mapping, (), (id, type, list, ranges, fallback))

}  // namespace pgsled::placement

namespace pgsled::snapshot::fields {

namespace json = boost::json;

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_pair = false;
template <class A, class B>
inline constexpr bool is_pair<std::pair<A, B>> = true;

template <class T>
using members_of = boost::describe::describe_members<T, boost::describe::mod_public>;

// A key that C++ has as a word of its own is a member with an underscore at its end.
inline std::string_view key_of(std::string_view member) {
  if (member.ends_with('_')) member.remove_suffix(1);
  return member;
}

template <class T>
json::value encode(const T& from) {
  if constexpr (std::is_same_v<T, std::string>) {
    return json::value(json::string(from));
  } else if constexpr (std::is_same_v<T, bool> || std::is_integral_v<T>) {
    return json::value(from);
  } else if constexpr (is_vector<T>) {
    json::array to;
    to.reserve(from.size());
    for (const auto& element : from) to.push_back(encode(element));
    return to;
  } else if constexpr (is_pair<T>) {
    json::array to;
    to.push_back(encode(from.first));
    to.push_back(encode(from.second));
    return to;
  } else {
    json::object to;
    boost::mp11::mp_for_each<members_of<T>>(
        [&](auto member) { to[key_of(member.name)] = encode(from.*member.pointer); });
    return to;
  }
}

// On failure `path` is what was wrong, innermost last.
template <class T>
bool decode(const json::value& from, T& to, std::string& path) {
  if constexpr (std::is_same_v<T, std::string>) {
    if (!from.is_string()) return false;
    to.assign(from.get_string().data(), from.get_string().size());
    return true;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!from.is_bool()) return false;
    to = from.get_bool();
    return true;
  } else if constexpr (std::is_integral_v<T>) {
    boost::json::error_code ec;
    const T number = from.to_number<T>(ec);  // refuses fractions and what does not fit
    if (ec) return false;
    to = number;
    return true;
  } else if constexpr (is_vector<T>) {
    if (!from.is_array()) return false;
    T elements;
    elements.reserve(from.get_array().size());
    for (const auto& element : from.get_array()) {
      typename T::value_type one{};
      if (!decode(element, one, path)) return false;
      elements.push_back(std::move(one));
    }
    to = std::move(elements);
    return true;
  } else if constexpr (is_pair<T>) {
    if (!from.is_array() || from.get_array().size() != 2) return false;
    return decode(from.get_array()[0], to.first, path) &&
           decode(from.get_array()[1], to.second, path);
  } else {
    if (!from.is_object()) return false;
    bool ok = true;
    boost::mp11::mp_for_each<members_of<T>>([&](auto member) {
      if (!ok) return;
      const json::value* value = from.get_object().if_contains(key_of(member.name));
      if (value == nullptr) return;
      std::string below;
      if (decode(*value, to.*member.pointer, below)) return;
      const std::string name(key_of(member.name));
      path = below.empty() ? name : name + "." + below;
      ok = false;
    });
    return ok;
  }
}

}  // namespace pgsled::snapshot::fields

namespace pgsled::snapshot {

template <class T>
std::string to_json(const T& value) {
  return boost::json::serialize(fields::encode(value));
}

template <class T>
result<T> from_json(std::string_view text) {
  boost::json::error_code ec;
  const boost::json::value parsed =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), ec);
  if (ec) return failure("08P01", "not JSON: " + ec.message());
  T to;
  std::string path;
  if (!fields::decode(parsed, to, path)) {
    return failure("08P01", path.empty() ? "a JSON object was expected"
                                         : "value of \"" + path + "\" has the wrong type or range");
  }
  return to;
}

}  // namespace pgsled::snapshot
