#pragma once
// A TOML file as plain values with line numbers: what the rest of the library reads, so that the
// parser behind it (toml11 3 on Debian 12, 4 on Debian 13) shows in one .cpp only. Pure.

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace pgsled::config {

struct named_node;

struct node {
  enum class type { boolean, integer, number, string, date, array, table };
  node::type kind = type::table;
  int line = 0;           // 1-based; of the header for a table
  bool overflow = false;  // an integer beyond 64 bits; its value is meaningless
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;
  std::string string;
  std::vector<node> items;                            // of an array
  std::vector<named_node> entries;                    // of a table, in the order of the file
};
struct named_node {
  std::string key;
  node value;
};

struct toml_error {
  int line = 0;
  std::string text;
};

inline constexpr std::size_t max_toml_bytes = 16u << 20;
inline constexpr int max_toml_depth = 64;  // of brackets: the parser recurses

// The root table. Never throws.
tl::expected<node, toml_error> parse_toml(std::string_view text, const std::string& file_name);

}  // namespace pgsled::config
