#pragma once
// libpg_query behind one door (its versions differ between Debian releases). Thread-safe: the
// library keeps its state per thread.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.hpp"

namespace pgsled::sql {

// Reads plain strings as with standard_conforming_strings on: a session that has it off must not
// have statements parsed whose plain strings hold backslashes (shape::backslashes).

// The statement tree as libpg_query's protobuf. Error 42601: the parser does not know the syntax;
// 54001: so deep that the parser, which recurses, would run out of stack.
result<std::string> parse_tree(const std::string& sql);
// Offset and length of each statement, without the space before it; errors as above. Empty ones are
// left out.
result<std::vector<std::pair<std::size_t, std::size_t>>> split(const std::string& sql);
int parser_version();  // 150001

}  // namespace pgsled::sql
