#pragma once
// admin_table: a result of the admin database, and the rows that processes answer to gather. Pure;
// Boost.JSON stays inside.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.hpp"
#include "services/router/admin/gatherer.hpp"

namespace pgsled::router {

enum class column_type : std::uint32_t { text = 25, number = 20, boolean = 16 };

struct admin_table {
  std::vector<std::pair<std::string, column_type>> columns;
  std::vector<std::vector<std::optional<std::string>>> rows;
  std::string tag = "SHOW", notice;
  bool has_result = true;              // false: a command, only the tag goes to the client

  void column(std::string name, column_type type = column_type::text) {
    columns.emplace_back(std::move(name), type);
  }
};

std::string to_json(const admin_table&);   // admin_answer, docs/formats/gather.md
// Keeps the columns named, in that order. 42703 for one that is not there.
result<admin_table> only_columns(admin_table, const std::vector<std::string>& names);

// One row of a gather answer: values as text, booleans as t and f.
struct gathered_row {
  std::string instance;                // who answered
  std::map<std::string, std::string, std::less<>> values;
  std::string text(std::string_view key) const;
  std::uint64_t number(std::string_view key) const;   // 0 when missing or not a number
};
constexpr std::size_t max_gathered_rows = 200'000;
// Rows of all answers; who answered with what is no such JSON is added to `missing`.
std::vector<gathered_row> read_rows(gathered&);
std::string json_text(const std::string&);   // quoted, for a question
// The text of an answer to "metrics"; empty when there is none.
std::string read_text(const std::string& json);

}  // namespace pgsled::router
