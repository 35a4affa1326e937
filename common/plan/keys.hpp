#pragma once
// Where the value of a sharding key may come from: a parameter, a lifted literal, a constant.
// Internal to the planner. Pure.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/placement/value.hpp"
#include "common/plan/plan.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

bool operator==(const key&, const key&);

class key_reader {
 public:
  explicit key_reader(const request& from) : request_(from) {}

  // A key if the expression is certain to be the value that the client sends, read as this type
  // and not changed; else nothing, and why() may say more. `limit`: as in key.
  std::optional<key> read(const node* expression, placement::key_type, std::uint32_t limit = 0);
  const std::string& why() const { return why_; }

  // A parameter without declared type gets its type from the place PostgreSQL looks at first. It
  // is that of the key for certain only if each place it is used in says so: those given to use(),
  // and casts to the type.
  void seen(const PgQuery__ParamRef&);
  // Compared with, or stored into, a key column, or cast to such a type.
  void use(const node* expression, placement::key_type);
  bool certain(const key&, placement::key_type) const;  // false: another use may have decided

 private:
  std::optional<key> parameter(const PgQuery__ParamRef&, placement::key_type, bool cast);
  std::optional<key> number(const PgQuery__AConst&);
  std::optional<key> string(const PgQuery__AConst&, placement::key_type);
  std::optional<key> lifted(const PgQuery__AConst&, bool& found);
  std::optional<key> literal_at(std::uint32_t location);

  const request& request_;
  using uses = std::map<int, std::set<const PgQuery__ParamRef*>>;
  uses all_;
  std::map<placement::key_type, uses> typed_;
  std::string why_;
};

// The type of keys that a cast to this type leaves as they are; a varchar(n) would cut them.
std::optional<placement::key_type> key_type_of(const PgQuery__TypeName*);

}  // namespace pgsled::plan
