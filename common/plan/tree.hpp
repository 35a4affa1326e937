#pragma once
// The statement tree: libpg_query's protobuf, unpacked, and a way to visit all of it without
// knowing all of its node types. Internal to the planner. Pure.

#include <pg_query.pb-c.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.hpp"

namespace pgsled::plan {

using tree_message = ProtobufCMessage;
using node = PgQuery__Node;

// A message of a type that is known, as one of any type, and back.
template <class T>
const tree_message* as_message(const T* m) {
  return reinterpret_cast<const tree_message*>(m);
}
template <class T>
const T& as(const tree_message* m) {
  return *reinterpret_cast<const T*>(m);
}

struct tree_deleter {
  void operator()(PgQuery__ParseResult* tree) const;
};
using tree_pointer = std::unique_ptr<PgQuery__ParseResult, tree_deleter>;

// nullptr: not a tree, or one that nests deeper than unpacking and walking by recursion may go.
tree_pointer unpack_tree(byte_span bytes);

// The messages directly below; those of repeated fields one by one.
void children(const tree_message& of, std::vector<const tree_message*>& into);

// The first text that `look` has to say of a message: of this one, or of those below it.
template <class Look>
std::string first_said(const tree_message* m, const Look& look) {
  if (!m) return {};
  if (auto said = look(m); !said.empty()) return said;
  std::vector<const tree_message*> below;
  children(*m, below);
  for (const tree_message* each : below) {
    if (auto said = first_said(each, look); !said.empty()) return said;
  }
  return {};
}

// A repeated field as a range.
struct node_list {
  node* const* first;
  std::size_t count;
  node* const* begin() const { return first; }
  node* const* end() const { return first + count; }
};
inline node_list list(std::size_t count, node** first) { return {first, count}; }

// Protobuf strings are never null once unpacked, but a hand-made message may say otherwise.
inline std::string text(const char* string) { return string ? string : ""; }
// "x.*" or "(x).*", which stand for as many columns as x has.
bool is_star(const node*);
bool has_star(const node*);   // anywhere in it
// The parts of a name given as a list of String nodes.
std::vector<std::string> name_parts(node_list names);
std::string function_name(const PgQuery__FuncCall&);   // without its schema
// Of a constant that is a string; empty: it is none.
std::string string_constant(const node* value);

}  // namespace pgsled::plan
