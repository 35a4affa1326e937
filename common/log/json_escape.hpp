#pragma once
// Text as it may stand inside a JSON string or on one line of a log. Pure; any thread.

#include <string>
#include <string_view>

namespace pgsled::log {

// Quotes, backslashes and control characters are escaped; bytes that are not UTF-8 become U+FFFD,
// because a log line that no reader can parse is worse than a replaced byte.
std::string json_escape(std::string_view text);
// Control characters become \n, \t or \xHH, so that nobody can forge a second line.
void append_single_line(std::string& to, std::string_view text);

}  // namespace pgsled::log
