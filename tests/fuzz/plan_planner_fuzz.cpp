// The planner: never a crash, neither on what the parser makes of mutated SQL (first byte even) nor
// on bytes that only claim to be a tree (odd). A plan that names a key names one there is.
#include <cstdlib>

#include "common/plan/planner.hpp"
#include "common/sql/parse.hpp"
#include "common/sql/shape.hpp"

namespace {

pgsled::plan::database_view database() {
  pgsled::plan::database_view d;
  d.shards = 3;
  d.sharded = {{"", "a", "user_id", "bigint"}, {"public", "b", "user_id", "bigint"},
               {"", "messages", "sender_id", "bigint"}, {"", "", "tenant", "bigint"},
               {"", "u", "k", "uuid"}, {"", "v", "k", "varchar"}};
  d.catalog.loaded = true;
  d.catalog.safe_functions = {"count", "max", "now"};
  d.catalog.hides_sharded = {"public.v"};
  d.catalog.tables = {{"public", "messages", {"id", "sender_id"}}, {"public", "t", {"tenant"}},
                      {"public", "u", {"k"}, {{"uuid", 0, true}}},
                      {"public", "v", {"k"}, {{"varchar", 9, true}}}};
  return d;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgsled;
  static const plan::database_view view = database();
  if (size < 1) return 0;
  plan::request request;
  if (data[0] & 1) {
    request.sql = "SELECT * FROM a WHERE user_id = 5";
    request.tree.assign(reinterpret_cast<const char*>(data + 1), size - 1);
  } else {
    request.sql.assign(reinterpret_cast<const char*>(data + 1), size - 1);
    if (request.sql.find('\0') != std::string::npos) return 0;
    auto tree = sql::parse_tree(request.sql);
    if (!tree) return 0;
    request.tree = std::move(*tree);
  }
  sql::shape shape;
  sql::find_shape(request.sql, true, shape);
  for (const auto& l : shape.literals) request.literal_offsets.push_back(l.offset);
  const plan::plan made = plan::make_plan(request, view, 1).plan;
  if (made.destination == plan::destination::refused && made.error.message.empty()) std::abort();
  if (made.destination != plan::destination::one_shard) return 0;
  std::vector<plan::key> keys = made.also_equal;
  keys.push_back(made.key);
  for (const auto& key : keys) {
    if (key.source == plan::key_source::none) std::abort();
    const bool literal = key.source == plan::key_source::literal;
    if (literal && key.number >= shape.literals.size()) std::abort();
  }
  return 0;
}
