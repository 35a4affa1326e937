// What hostile servers say of a statement that writes to every shard. Input: one byte that chooses
// the statement, then messages, each of one byte of type and one of length with as many bytes; a
// message 0 ends a shard. Whatever they say, what the client is told is well-formed and bounded.

#include <cstdlib>

#include "common/wire/messages.hpp"
#include "services/frontend/shards/same_rows.hpp"

namespace {

using namespace pgsled;

void require(bool condition) {
  if (!condition) std::abort();
}

// Whole messages, one behind the other.
void check_messages(const std::string& told) {
  std::string rest = told;
  wire::take_messages(rest, [](char type, byte_span body, std::string_view) {
    require(type == wire::backend::data_row || type == wire::backend::row_description ||
            type == wire::backend::parameter_description);
    require(body.size() <= frontend::same_rows::max_held);
  });
  require(rest.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  frontend::same_rows::statement one{
      "INSERT INTO t VALUES (1)", std::string(4, '\0'),
      std::string(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 16)),
      {"\"t\"", "\"t\"", (data[0] & 1) != 0, (data[0] & 2) != 0},
      static_cast<std::size_t>(data[0] >> 4)};
  frontend::same_rows all((data[0] & 4) != 0, (data[0] & 8) != 0, {one, one}, {one});
  std::size_t at = 1;
  for (std::uint32_t shard = 0; shard < 3; ++shard) {
    const auto said = all.say(shard);
    require(!said.bytes.empty() && !said.owed.empty());
    while (at + 2 <= size && data[at] != 0) {
      const auto length = std::min<std::size_t>(data[at + 1], size - at - 2);
      all.heard(static_cast<char>(data[at]), byte_span(data + at + 2, length));
      at += 2 + length;
    }
    ++at;
    if (all.answered(shard)) break;
  }
  for (const std::size_t which : {std::size_t{0}, std::size_t{1}}) {
    check_messages(all.told(which).rows);
    check_messages(all.told(which).columns);
  }
  check_messages(all.described(0).parameters);
  (void)all.error_for({"42501", "", {}, {}});
  (void)all.error_for({"42703", "", {}, {}});
  return 0;
}
