#include "common/plan/tree.hpp"

namespace pgsled::plan {
namespace {

// Unpacking takes about 1.3 kB of stack a level (three times that with sanitizers).
constexpr std::size_t deepest = 2000;

class wire_reader {
 public:
  wire_reader(byte_span bytes, const ProtobufCMessageDescriptor& root) : bytes_(bytes) {
    open_.push_back({&root, bytes.size()});
  }

  bool acceptable() {
    while (!open_.empty()) {
      if (at_ == open_.back().end) {
        open_.pop_back();
      } else if (!field()) {
        return false;
      }
    }
    return true;
  }

 private:
  struct level {
    const ProtobufCMessageDescriptor* type;
    std::size_t end;
  };

  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ >= open_.back().end) return false;
      const std::uint8_t byte = bytes_[at_++];
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80)) return true;
    }
    return false;
  }
  bool skip(std::uint64_t size) {
    if (size > open_.back().end - at_) return false;
    at_ += static_cast<std::size_t>(size);
    return true;
  }
  bool field() {
    std::uint64_t tag = 0, size = 0;
    if (!varint(tag)) return false;
    switch (tag & 7) {
      case 0: return varint(size);
      case 1: return skip(8);
      case 5: return skip(4);
      case 2: break;
      default: return false;
    }
    if (!varint(size) || size > open_.back().end - at_) return false;
    const auto* found = protobuf_c_message_descriptor_get_field(open_.back().type,
                                                                static_cast<unsigned>(tag >> 3));
    if (!found || found->type != PROTOBUF_C_TYPE_MESSAGE) return skip(size);
    open_.push_back({static_cast<const ProtobufCMessageDescriptor*>(found->descriptor),
                     at_ + static_cast<std::size_t>(size)});
    return open_.size() <= deepest;
  }

  byte_span bytes_;
  std::size_t at_ = 0;
  std::vector<level> open_;
};

template <class T>
const T& member(const tree_message& of, unsigned offset) {
  return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(&of) + offset);
}

}  // namespace

void tree_deleter::operator()(PgQuery__ParseResult* tree) const {
  pg_query__parse_result__free_unpacked(tree, nullptr);
}

tree_pointer unpack_tree(byte_span bytes) {
  if (!wire_reader{bytes, pg_query__parse_result__descriptor}.acceptable()) return nullptr;
  return tree_pointer{pg_query__parse_result__unpack(nullptr, bytes.size(), bytes.data())};
}

void children(const tree_message& of, std::vector<const tree_message*>& into) {
  for (unsigned i = 0; i < of.descriptor->n_fields; ++i) {
    const ProtobufCFieldDescriptor& field = of.descriptor->fields[i];
    if (field.type != PROTOBUF_C_TYPE_MESSAGE) continue;
    if (field.label == PROTOBUF_C_LABEL_REPEATED) {
      const auto count = member<std::size_t>(of, field.quantifier_offset);
      const auto* each = member<const tree_message* const*>(of, field.offset);
      for (std::size_t k = 0; k < count; ++k) {
        if (each[k]) into.push_back(each[k]);
      }
      continue;
    }
    const bool one_of = field.flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
    if (one_of && member<std::uint32_t>(of, field.quantifier_offset) != field.id) continue;
    if (const auto* child = member<const tree_message*>(of, field.offset)) into.push_back(child);
  }
}

bool has_star(const node* n) {
  const auto star = [](const tree_message* m) {
    return std::string(m->descriptor == &pg_query__a__star__descriptor ? "*" : "");
  };
  return n != nullptr && !first_said(as_message(n), star).empty();
}

bool is_star(const node* n) {
  if (n == nullptr) return false;
  const node* last = nullptr;
  if (n->node_case == PG_QUERY__NODE__NODE_COLUMN_REF && n->column_ref->n_fields > 0) {
    last = n->column_ref->fields[n->column_ref->n_fields - 1];
  } else if (n->node_case == PG_QUERY__NODE__NODE_A_INDIRECTION &&
             n->a_indirection->n_indirection > 0) {
    last = n->a_indirection->indirection[n->a_indirection->n_indirection - 1];
  }
  return last != nullptr && last->node_case == PG_QUERY__NODE__NODE_A_STAR;
}

std::vector<std::string> name_parts(node_list names) {
  std::vector<std::string> parts;
  for (const node* each : names) {
    if (each && each->node_case == PG_QUERY__NODE__NODE_STRING) {
      parts.push_back(text(each->string->sval));
    }
  }
  return parts;
}

std::string function_name(const PgQuery__FuncCall& call) {
  const auto parts = name_parts(list(call.n_funcname, call.funcname));
  return parts.empty() ? std::string{} : parts.back();
}

std::string string_constant(const node* value) {
  const bool is_one = value && value->node_case == PG_QUERY__NODE__NODE_A_CONST &&
                      value->a_const->val_case == PG_QUERY__A__CONST__VAL_SVAL;
  return is_one ? text(value->a_const->sval->sval) : std::string{};
}

}  // namespace pgsled::plan
