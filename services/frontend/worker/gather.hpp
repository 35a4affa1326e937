#pragma once
// A worker's answers to the router's `gather` (docs/formats/gather.md).

#include <string>
#include <string_view>

namespace pgsled::frontend {

class worker;
std::string answer_gather(const worker&, std::string_view request_json);

}  // namespace pgsled::frontend
