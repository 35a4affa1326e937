#pragma once
// Where the value of a sharding key may come from: a parameter, a lifted literal, a constant.
// Internal to the planner. Pure.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/plan/plan.hpp"
#include "common/plan/tree.hpp"

namespace pgsled::plan {

bool operator==(const key&, const key&);

class key_reader {
 public:
  explicit key_reader(const request& from) : request_(from) {}

  // A key if the expression is one that is certain to be an int8, int4 or int2 of the value that
  // the client sends; else nothing, and why() may say more.
  std::optional<key> read(const node* expression);
  const std::string& why() const { return why_; }

  // A parameter without declared type gets its type from the place PostgreSQL looks at first. It
  // is an integer for certain only if each place it is used in says so: those given to use(), and
  // casts to an integer type.
  void seen(const PgQuery__ParamRef&);
  void use(const node* expression);  // compared with, or stored into, a key column
  bool certain(const key&) const;    // false: another use may have decided the type

 private:
  std::optional<key> parameter(const PgQuery__ParamRef&);
  std::optional<key> constant(const PgQuery__AConst&);
  std::optional<key> literal_at(std::uint32_t location);

  const request& request_;
  std::map<int, std::set<const PgQuery__ParamRef*>> all_, as_integer_;
  std::string why_;
};

bool is_integer_type(const PgQuery__TypeName*);

}  // namespace pgsled::plan
